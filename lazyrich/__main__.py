"""The `lazyrich` command and `python -m lazyrich`: what runs before the libraries are there, so that Ctrl-C is heeded while they load."""

import sys


def main() -> None:
    """Load the command line and run it."""
    try:
        from lazyrich.cli import main as command

        command()
    except KeyboardInterrupt:
        print("interrupted. Nothing was saved.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
