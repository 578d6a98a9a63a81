"""`python -m edgeopt` is `edgeopt`. Imports nothing at first, so that Ctrl-C is answered while the rest is imported."""

import sys


def main() -> None:
    """The entry point of the command `edgeopt`."""
    try:
        from edgeopt.cli import main as run  # typer and the commands

        run()
    except KeyboardInterrupt:  # before a command began: each of them says what becomes of its work
        sys.stderr.write("interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
