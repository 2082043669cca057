"""`python -m lazyrich` is the `lazyrich` command."""

from lazyrich.cli import main

main()
