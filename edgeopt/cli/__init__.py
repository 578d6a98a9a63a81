"""The command line: what the commands are called and what they take; what they do is in the module of each.

Importing this imports typer and nothing else that takes time, so that `edgeopt --help` and shell completion are quick.
"""

from pathlib import Path
from typing import Annotated

import typer

from edgeopt.cli import complete
from edgeopt.cli.failures import GOES_ON, NOTHING_KEPT, failures_shown
from edgeopt.cli.help import Command, GroupedCommands

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
new_app = typer.Typer(
    help="Write the start of something new.", cls=GroupedCommands, rich_markup_mode=None, no_args_is_help=True
)
app.add_typer(plugins_app, name="plugins")
app.add_typer(new_app, name="new")

RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="The recipe, a TOML file.", autocompletion=complete.recipes)
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
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of results and cached stages.")]


def main() -> None:
    """The entry point of the command `edgeopt`."""
    app(prog_name="edgeopt")


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


@app.command(cls=Command)
def run(
    recipe: RecipeArgument,
    set_: SetOption = None,
    *,
    smoke: SmokeOption = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute every stage again, cached or not.")] = False,
    measure_again: Annotated[
        bool, typer.Option("--measure-again", help="Measure latency and memory again; all else is kept.")
    ] = False,
    locked: Annotated[
        bool, typer.Option("--locked", help="Refuse to run when anything differs from the lock of the last run.")
    ] = False,
    out: OutOption = Path("runs"),
    plugin: PluginOption = None,
) -> None:
    """Run a recipe: train, optimize, export, open every file and measure it.

    A run that was interrupted goes on where it stopped when the same command is given again.
    """
    with failures_shown(GOES_ON):
        from edgeopt.cli.run import run_recipe

        run_recipe(
            recipe,
            overrides=set_ or (),
            smoke=smoke,
            fresh=fresh,
            measure_again=measure_again,
            locked=locked,
            out=out,
            plugin_files=plugin or (),
        )


@app.command(cls=Command)
def check(
    recipe: RecipeArgument,
    set_: SetOption = None,
    *,
    smoke: SmokeOption = False,
    out: OutOption = Path("runs"),
    plugin: PluginOption = None,
) -> None:
    """Find everything that is wrong with a recipe, or show what a run of it would do; no image is read."""
    with failures_shown():
        from edgeopt.cli.check import check_recipe

        check_recipe(recipe, overrides=set_ or (), smoke=smoke, out=out, plugin_files=plugin or ())


@app.command(cls=Command)
def sensitivity(
    recipe: RecipeArgument,
    of: Annotated[
        str,
        typer.Option(
            "--of",
            metavar="PROBE",
            autocompletion=complete.probes,
            help="What to try on each layer: sparsity, bits, quantization or a plugin's.",
        ),
    ],
    levels: Annotated[
        str | None,
        typer.Option(
            "--levels",
            metavar="LEVELS",
            help='Levels to try, as in "8 6 4"; the probe\'s own when left out.',
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold", metavar="SHARE", help="Largest drop of accuracy, or error of the logits, that passes."
        ),
    ] = 0.01,
    measure: Annotated[
        str, typer.Option("--measure", metavar="MEASURE", help="accuracy, or logits: how far they move.")
    ] = "accuracy",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a value of the recipe, or an option of the probe: probe.inputs=8.",
        ),
    ] = None,
    *,
    complete: Annotated[
        bool,
        typer.Option("--complete", help="Run every layer and level on all images, also where the verdict is certain."),
    ] = False,
    certainty: Annotated[
        float,
        typer.Option(
            "--certainty",
            metavar="SHARE",
            help="Probability that all verdicts are those on all images; 1 guesses nothing.",
        ),
    ] = 0.99,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            help="Layers to run side by side; the machine's cores when left out.",
            show_default=False,
        ),
    ] = None,
    smoke: SmokeOption = False,
    out: OutOption = Path("runs"),
    plugin: PluginOption = None,
) -> None:
    """Measure how much each layer of a recipe's float model minds being pruned or rounded, and recommend a level for
    each.

    Writes sensitivity.csv, sensitivity.html and allocation.toml, which passes read as allocation = "FILE".
    """
    with failures_shown(GOES_ON):
        from edgeopt.cli.sensitivity import show_sensitivity

        show_sensitivity(
            recipe,
            of=of,
            levels=levels,
            threshold=threshold,
            measure=measure,
            complete=complete,
            certainty=certainty,
            workers=workers,
            overrides=set_ or (),
            smoke=smoke,
            out=out,
            plugin_files=plugin or (),
        )


@app.command(cls=Command)
def convert(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A model file, or a SavedModel folder.")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="What to make of it, such as onnx or tflite.")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="An option of source, export, dataset or a pass: export.precision=float16.",
        ),
    ] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="The new file; named after the source when left out.", show_default=False
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset", metavar="NAME", help="Images to calibrate with and to compare on.", show_default=False
        ),
    ] = None,
    pass_: Annotated[
        list[str] | None,
        typer.Option("--pass", metavar="NAME", help="A pass on the way, such as ptq; may be given again."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")] = False,
    plugin: PluginOption = None,
) -> None:
    """Convert one model file to another format, and show how far the two are apart on the same images."""
    with failures_shown(NOTHING_KEPT):
        from edgeopt.cli.convert import convert_file
        from edgeopt.conversion.plan import ConversionRequest

        request = ConversionRequest(
            source=str(source),
            format=to,
            passes=tuple(pass_ or ()),
            dataset=dataset,
            overrides=tuple(set_ or ()),
            plugin_files=tuple(str(file) for file in plugin or ()),
        )
        convert_file(request, out, force=force)


@plugins_app.callback()
def plugins(
    context: typer.Context,
    kind: Annotated[
        str | None, typer.Option(help="Only plugins of this kind.", autocompletion=complete.plugin_kinds)
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Show the plugins that recipes can use."""
    if context.invoked_subcommand is None:
        with failures_shown():
            from edgeopt.cli.plugins import list_plugins

            list_plugins(kind, plugin or ())


@plugins_app.command("show", cls=Command)
def show_plugin(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the plugin.", autocompletion=complete.plugin_names)
    ],
    plugin: PluginOption = None,
) -> None:
    """Show a plugin's options with their types, bounds, defaults and descriptions, as TOML to paste into a recipe."""
    with failures_shown():
        from edgeopt.cli.plugins import show_plugins

        show_plugins(name, plugin or ())


@app.command(cls=Command)
def doctor() -> None:
    """Look at what is installed and at the machine, and say what is missing or untested."""
    with failures_shown():
        from edgeopt.cli.doctor import examine

        examine()


@app.command(cls=Command)
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.", autocompletion=complete.runs)],
    *,
    open_: Annotated[bool, typer.Option("--open", help="Open report.html in the browser.")] = False,
) -> None:
    """Show the report of a finished run."""
    with failures_shown():
        from edgeopt.cli.report import show_report

        show_report(run, in_browser=open_)


@app.command(cls=Command)
def clean(
    *,
    out: OutOption = Path("runs"),
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", metavar="AGE", help="Only what was made longer ago: 30d, 12h.", show_default=False
        ),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Also what folders of runs refer to; their own files stay.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
) -> None:
    """Show what takes space among the cached stages, and remove what no run refers to.

    What a run at work holds is never taken. A run whose stages were removed makes them again.
    """
    with failures_shown():
        from edgeopt.cli.clean import clean_store

        clean_store(out, older_than=older_than, everything=all_, dry_run=dry_run, yes=yes)


@app.command(cls=Command)
def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it here instead of printing it.")
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Print the JSON schema of recipes with the installed plugins, with which editors complete and check them."""
    with failures_shown():
        from edgeopt.cli.schema import write_schema

        write_schema(output, plugin or ())


@new_app.command("plugin", cls=Command)
def new_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the package, such as edgeopt-faces.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder in which the package's folder is made.")] = (
        Path()
    ),
    kind: Annotated[
        str,
        typer.Option(metavar="KIND", help="What it adds: dataset, model, quantizer, pass, exporter, reader or probe."),
    ] = "pass",
) -> None:
    """Write a plugin package whose contract tests pass, to start from."""
    with failures_shown():
        from edgeopt.cli.new import write_plugin_package

        write_plugin_package(name, out, kind)
