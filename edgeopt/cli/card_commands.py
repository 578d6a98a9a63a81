"""Commands that make something of a file's card; what they do is in the module of each."""

from pathlib import Path
from typing import Annotated

import typer

from edgeopt.cli import complete
from edgeopt.cli.application import PluginOption, app, app_app
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
    plugin: PluginOption = None,
) -> None:
    """Show what an app must know to use a file, or the code that feeds it in the language of the app.

    The code resizes, cuts, normalizes, quantizes and lays out an image as training did, and reads the answer.
    """
    with failures_shown():
        from edgeopt.cli.card import show_card

        show_card(file, lang, plugin or ())


@app_app.command("android", cls=Command)
def app_android(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="Folder of a finished run, or a model file of it.",
            autocompletion=complete.runs,
        ),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the project; it must not be there.")],
    id_: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="ID",
            help="The app's id, as in org.example.flowers; com.example.NAME when left out.",
            show_default=False,
        ),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Write a Gradle project around a .tflite or .pte file: the camera, the newest frame, the file's answer.

    All numbers come from the file's card, which the app reads at its start; it checks itself by the card's images.
    """
    with failures_shown():
        from edgeopt.cli.app_android import write_android_app

        write_android_app(run, out, id_, plugin or ())
