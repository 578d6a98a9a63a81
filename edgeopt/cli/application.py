"""The application that commands are added to, and the arguments that several of them take.

Importing this imports typer and nothing else that takes time, so that `edgeopt --help` and shell completion are quick.
"""

from pathlib import Path
from typing import Annotated

import typer

from edgeopt.cli import complete
from edgeopt.cli.help import GroupedCommands

app = typer.Typer(
    name="edgeopt",
    help="One recipe, every edge runtime, numbers you can trust.",
    no_args_is_help=True,
    cls=GroupedCommands,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # our own pages: see `edgeopt.cli.help`
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 a bug, 2 a mistake in what was given, 3 a missed gate, 130 interrupted.",
)
plugins_app = typer.Typer(
    help="Show the plugins that recipes can use.",
    cls=GroupedCommands,
    rich_markup_mode=None,
    invoke_without_command=True,
)
devices_app = typer.Typer(
    help="List the devices of a recipe, and look whether they are there.",
    cls=GroupedCommands,
    rich_markup_mode=None,
    invoke_without_command=True,
)
new_app = typer.Typer(
    help="Write the start of something new.", cls=GroupedCommands, rich_markup_mode=None, no_args_is_help=True
)
app_app = typer.Typer(
    help="Write an app around a file.", cls=GroupedCommands, rich_markup_mode=None, no_args_is_help=True
)
app.add_typer(app_app, name="app")
app.add_typer(plugins_app, name="plugins")
app.add_typer(devices_app, name="devices")
app.add_typer(new_app, name="new")

RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="The recipe, a TOML file.", autocompletion=complete.recipes)
]
RecipesArgument = Annotated[
    list[Path],
    typer.Argument(metavar="RECIPE...", help="The recipe, a TOML file, or several.", autocompletion=complete.recipes),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe, as in passes.0.epochs=1."),
]
PluginOption = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", help="Also load the plugins of this Python file.", show_default=False),
]
SmokeOption = Annotated[
    bool, typer.Option("--smoke", help="Run all of it in seconds, on few images; the figures mean nothing.")
]
DeviceOption = Annotated[
    list[str] | None,
    typer.Option("--device", metavar="NAME", help="A device, by its name; may be given again.", show_default=False),
]
DevicesOption = Annotated[
    Path | None,
    typer.Option("--recipe", metavar="FILE", help="The file whose [[devices]] are meant.", show_default=False),
]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of results and cached stages.")]
BucketOption = Annotated[
    str | None,
    typer.Option(
        "--bucket",
        metavar="ADDRESS",
        envvar="EDGEOPT_BUCKET",
        help="Share results of stages with other machines through s3://BUCKET/FOLDER, or whatever fsspec opens.",
        show_default=False,
        show_envvar=False,
    ),
]


def _show_version(*, wanted: bool) -> None:
    if wanted:
        from edgeopt._version import __version__

        typer.echo(f"edgeopt {__version__}")
        raise typer.Exit


@app.callback()
def edgeopt(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and leave.",
            is_eager=True,
            callback=lambda value: _show_version(wanted=value),
        ),
    ] = False,
) -> None:
    """One recipe, every edge runtime, numbers you can trust."""
