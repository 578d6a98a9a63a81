"""The command line: what the commands are called and what they take; what they do is in the module of each.

Importing this imports typer and nothing else that takes time, so that `edgeopt --help` and shell completion are quick.
"""

from edgeopt.cli import recipe_commands  # each adds its commands to the application, in this order

# isort: split
from edgeopt.cli import card_commands, file_commands, plugin_commands
from edgeopt.cli.application import app

__all__ = ["app", "card_commands", "file_commands", "main", "plugin_commands", "recipe_commands"]


def main() -> None:
    """The entry point of the command `edgeopt`."""
    app(prog_name="edgeopt")
