"""The shell around `derive` and `numerics`: command line, session, data loaders and the demo."""
