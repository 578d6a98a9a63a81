"""Commands that make something of a file's card; what they do is in the module of each."""

from pathlib import Path
from typing import Annotated

import typer

from edgeopt.cli.application import app
from edgeopt.cli.failures import failures_shown
from edgeopt.cli.help import Command


@app.command(cls=Command)
def card(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A model file, or the card.json beside it.")],
    *,
    lang: Annotated[
        str | None,
        typer.Option(
            "--lang",
            metavar="NAME",
            help="Print code that feeds the file instead: kotlin, swift, cpp or python.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show what an app must know to use a file, or the code that feeds it in the language of the app.

    The code resizes, cuts, normalizes, quantizes and lays out an image as training did, and reads the answer.
    """
    with failures_shown():
        from edgeopt.cli.card import show_card

        show_card(file, lang)
