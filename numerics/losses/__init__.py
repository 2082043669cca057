"""The losses that come with the project, as `derive.Loss.source()` writes them; a test holds text and derivation together."""
