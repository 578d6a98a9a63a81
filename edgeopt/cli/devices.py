"""`edgeopt devices`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from edgeopt.bench.table import BenchDevice
from edgeopt.bench.terminal import described
from edgeopt.cli.consoles import stderr, stdout
from edgeopt.errors import DeviceError, Problem
from edgeopt.plugins.device import Device
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.devices import chosen, devices_in, devices_of


def list_devices(recipe: Path | None, names: Iterable[str], plugin_files: Iterable[Path]) -> None:
    """Prints a line for each device: what it is, and how it is now.

    Raises `RecipeError` for devices that are described wrongly, and in the end `DeviceError` for those that are away.
    """

    def look(name: str, kind: str, device: Device) -> str:
        return described(BenchDevice(name=name, kind=kind, facts=device.describe()))

    _each(recipe, names, plugin_files, look)


def clean_devices(recipe: Path | None, names: Iterable[str], plugin_files: Iterable[Path]) -> None:
    """Takes everything of edgeopt's away from each device, and says so.

    Raises as `list_devices` does.
    """

    def clean(name: str, _kind: str, device: Device) -> str:
        device.clean()
        return f"{name}: clean"

    _each(recipe, names, plugin_files, clean)


def _each(
    recipe: Path | None,
    names: Iterable[str],
    plugin_files: Iterable[Path],
    act: Callable[[str, str, Device], str],
) -> None:
    registry = load_registry(plugin_files)
    known = devices_in(recipe, registry) if recipe else devices_of({}, registry)
    problems: list[Problem] = []
    for name, use in chosen(known, tuple(names) or known).items():
        try:
            device = use.plugin.opened(use.options, name, lambda text: stderr().print(text, markup=False))
            try:
                stdout().print(act(name, use.plugin.name, device), markup=False, soft_wrap=True)
            finally:
                device.close()
        except DeviceError as error:
            problems += error.problems
    if problems:
        raise DeviceError(*problems)
