"""The devices that a file names, a recipe or one with `[[devices]]` alone, and those that a finished run names."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeopt.arrays import Json
from edgeopt.errors import Location, Problem, RecipeError, did_you_mean
from edgeopt.plugins.declarations import DevicePlugin
from edgeopt.plugins.registry import Registry
from edgeopt.plugins.use import Use
from edgeopt.recipe.lookup import Lookup
from edgeopt.recipe.read import DeviceStep, Source, problems_of
from edgeopt.toml_lines import key_lines, toml_mistake

LOCAL = "local"
"""The device that is always there: this machine."""

Devices = dict[str, Use[DevicePlugin]]


class _DevicesOnly(BaseModel):
    """What is read of a file; it may hold a whole recipe besides."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    devices: tuple[DeviceStep, ...] = Field((), description="the devices")


def devices_in(path: Path, registry: Registry) -> Devices:
    """The devices of a file by name, and `local`.

    Raises `RecipeError` with every problem, each with its line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = tomllib.loads(text)
    except OSError as error:
        raise RecipeError(
            Problem(f"cannot be read: {error.strerror}", "name a file with [[devices]]", Location(str(path)))
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(Problem("is not UTF-8 text", "save it as UTF-8", Location(str(path)))) from error
    except tomllib.TOMLDecodeError as error:
        brief, line = toml_mistake(error, text)
        where = Location(str(path), line)
        raise RecipeError(Problem(f"this is not TOML: {brief}", "see https://toml.io", where)) from error
    return _looked_up(values, Source(str(path), text, key_lines(text)), registry)


def devices_of(resolved: Mapping[str, Json], registry: Registry) -> Devices:
    """The devices of a finished run by name, from its recipe with every option written out, and `local`.

    Raises `RecipeError` with every problem.
    """
    return _looked_up(resolved, Source(), registry)


def chosen(devices: Devices, names: Iterable[str]) -> Devices:
    """The named ones of the devices that there are.

    Raises `RecipeError` with every name that there is not.
    """
    names = tuple(dict.fromkeys(names))
    known = ", ".join(devices)
    problems = [
        Problem(
            f"--device {name}: there is no such device",
            did_you_mean(name, devices) or f"there is {known}; name a file with more of them with --recipe",
        )
        for name in names
        if name not in devices
    ]
    if problems:
        raise RecipeError(*problems)
    return {name: devices[name] for name in names}


def _looked_up(values: Mapping[str, Any], source: Source, registry: Registry) -> Devices:
    try:
        steps = _DevicesOnly.model_validate(values).devices
    except ValidationError as error:
        raise RecipeError(*problems_of(error, (), source, _DevicesOnly)) from error
    lookup = Lookup(source, registry)
    lookup.check_devices(steps)
    found = {step.called: lookup.use(DevicePlugin, step, ("devices", number)) for number, step in enumerate(steps)}
    here = lookup.use(DevicePlugin, DeviceStep(use=LOCAL), ())
    if lookup.problems:
        raise RecipeError(*lookup.problems)
    return {name: use for name, use in {LOCAL: here, **found}.items() if use is not None}
