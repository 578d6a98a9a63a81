"""`python -m edgeopt` is `edgeopt`."""

from edgeopt.cli import main

main()
