"""Commands about plugins and what is installed; what they do is in the module of each."""

from pathlib import Path
from typing import Annotated

import typer

from edgeopt.cli import complete
from edgeopt.cli.application import (
    DeviceOption,
    DevicesOption,
    PluginOption,
    app,
    devices_app,
    new_app,
    plugins_app,
)
from edgeopt.cli.failures import failures_shown
from edgeopt.cli.help import Command


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


@devices_app.callback()
def devices(
    context: typer.Context,
    recipe: DevicesOption = None,
    device: DeviceOption = None,
    plugin: PluginOption = None,
) -> None:
    """List the devices of a recipe, and look whether they are there. This machine is always one."""
    if context.invoked_subcommand is None:
        with failures_shown():
            from edgeopt.cli.devices import list_devices

            list_devices(recipe, device or (), plugin or ())


@devices_app.command("clean", cls=Command)
def clean_devices(recipe: DevicesOption = None, device: DeviceOption = None, plugin: PluginOption = None) -> None:
    """Take everything of edgeopt's away from the devices: its folder, and nothing else was ever there."""
    with failures_shown():
        from edgeopt.cli.devices import clean_devices

        clean_devices(recipe, device or (), plugin or ())


@app.command(cls=Command)
def doctor() -> None:
    """Look at what is installed and at the machine, and say what is missing or untested."""
    with failures_shown():
        from edgeopt.cli.doctor import examine

        examine()


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
        typer.Option(metavar="KIND", help="dataset, model, quantizer, pass, exporter, reader, probe, device or task."),
    ] = "pass",
) -> None:
    """Write a plugin package whose contract tests pass, to start from."""
    with failures_shown():
        from edgeopt.cli.new import write_plugin_package

        write_plugin_package(name, out, kind)


@new_app.command("recipe", cls=Command)
def new_recipe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the recipe and its file, such as my-flowers.")],
    model: Annotated[
        str,
        typer.Option(metavar="ARCH", help="An architecture of torchvision, or PLUGIN:ARCH, as in timm:tinynet_a."),
    ] = "mobilenet_v3_small",
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A folder of images for each class; handwritten digits when left out.",
            show_default=False,
        ),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="An exporter, such as tflite or executorch; may be given again. onnx when left out.",
            autocompletion=complete.exporters,
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder in which the file is made.")] = Path(),
) -> None:
    """Write a commented recipe that `edgeopt check` accepts, to start from."""
    with failures_shown():
        from edgeopt.cli.new import write_recipe

        write_recipe(name, out, model=model, data=data, runtimes=runtime or ("onnx",))


@new_app.command("example", cls=Command)
def new_example(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Name of the example; without one, all are listed.", autocompletion=complete.examples
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder in which the example's folder is made.")] = (
        Path()
    ),
) -> None:
    """Write a folder to copy from: a service on a board, a web page, an app, a gate for CI, plugins in one file."""
    with failures_shown():
        from edgeopt.cli.new import write_example

        write_example(name, out)
