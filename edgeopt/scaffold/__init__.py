"""What `edgeopt new` writes: a plugin package that works from the start."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeopt.errors import StorageError
from edgeopt.files import storage_errors
from edgeopt.plugins import PluginError, Problem, did_you_mean
from edgeopt.plugins.registry import Registry

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SHARED: Mapping[str, str] = {
    "pyproject.toml.j2": "pyproject.toml",
    "README.md.j2": "README.md",
    "package.py.j2": "src/{module}/__init__.py",
}


@dataclass(frozen=True)
class _Kind:
    """What is written for one kind of plugin: its summary, and the modules that do the work."""

    summary: str
    work: tuple[str, ...]

    def templates(self, kind: str) -> dict[str, str]:
        """The path of the file that each template becomes."""
        modules = {f"{kind}_{each}.py.j2": f"src/{{module}}/{each}.py" for each in ("options", "plugin", *self.work)}
        return {**_SHARED, **modules, f"{kind}_test_plugin.py.j2": "tests/test_plugin.py"}


_KINDS: Mapping[str, _Kind] = {
    "dataset": _Kind("Bars, across or upright, on a noisy ground.", ("images",)),
    "model": _Kind("Two convolutions and a linear layer.", ("network",)),
    "quantizer": _Kind("Static int8 with one scale for each weight tensor.", ("numerics",)),
    "pass": _Kind("Clips weights that lie far from the mean of their layer.", ("clip",)),
    "exporter": _Kind("The program itself, run by PyTorch.", ("exporter", "predictor")),
    "reader": _Kind("One linear layer on the mean colour.", ("reading",)),
    "device": _Kind("Another Python on this machine.", ("link",)),
    "probe": _Kind("Noise on the weights, in standard deviations.", ("noise",)),
    "task": _Kind("One number an image, such as how much of it is bright.", ("number", "answers")),
}
KINDS = tuple(_KINDS)
"""The kinds of plugins that can be written."""


def write_plugin_package(name: str, folder: Path, registry: Registry, kind: str = "pass") -> Path:
    """Writes the package `name` with a plugin of `kind` into a folder of that name below `folder`; returns that folder.

    Raises `PluginError` for a kind that there is not, and for a name that cannot be a package or is taken,
    `StorageError` when the folder exists.
    """
    if kind not in _KINDS:
        raise PluginError(Problem(f"--kind {kind}: there is no such kind of plugin", did_you_mean(kind, KINDS)))
    _check_name(name, registry)
    target = folder / name
    if target.exists():
        raise StorageError(f"{target} exists already", hint="choose another name, or another folder with --out")
    pending = folder / f".{name}.{uuid.uuid4().hex[:8]}"
    with storage_errors(folder):
        try:
            for path, text in _files(name, kind):
                (pending / path).parent.mkdir(parents=True, exist_ok=True)
                (pending / path).write_text(text, encoding="utf-8")
            pending.rename(target)
        finally:
            shutil.rmtree(pending, ignore_errors=True)
    return target


def plugin_name(package: str) -> str:
    """The name in recipes of what a package declares: the package's without a leading `edgeopt-`."""
    return package.removeprefix("edgeopt-")


def _check_name(name: str, registry: Registry) -> None:
    if not _NAME.fullmatch(name):
        allowed = "small letters, digits and single '-' between them, as in edgeopt-faces"
        raise PluginError(Problem(f"{name!r} cannot be the name of a package", allowed))
    module = name.replace("-", "_")
    if keyword.iskeyword(module):
        raise PluginError(Problem(f"{name!r} is a word of Python", f"try 'edgeopt-{name}'"))
    if module in sys.stdlib_module_names or importlib.util.find_spec(module):
        raise PluginError(Problem(f"there already is a Python module {module!r}", "choose another name"))
    if any(entry.plugin.name == plugin_name(name) for entry in registry):
        raise PluginError(Problem(f"there already is a plugin {plugin_name(name)!r}", "choose another name"))


def _files(name: str, kind: str) -> Iterator[tuple[Path, str]]:
    """Path below the package's folder and text of each file."""
    from jinja2 import Environment, StrictUndefined  # only whoever writes a package needs it

    values = {
        "name": name,
        "kind": "data set" if kind == "dataset" else kind,
        "summary": _KINDS[kind].summary,
        "module": name.replace("-", "_"),
        "plugin": plugin_name(name),
        "class_name": "".join(part.capitalize() for part in plugin_name(name).split("-")),
    }
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701 — code, not HTML
    for template, path in _KINDS[kind].templates(kind).items():
        text = (Path(__file__).parent / template).read_text(encoding="utf-8")
        yield Path(path.format_map(values)), environment.from_string(text).render(values)
