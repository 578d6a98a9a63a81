"""The agent as one file, the same bytes for the same modules: a zip that Python runs."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgeopt.errors import PluginError

_AGENT = "edgeopt.devices.agent"
_MODULES = (
    "edgeopt.arrays",
    "edgeopt.cores",
    "edgeopt.measure.calls",
    "edgeopt.measure.energy",
    "edgeopt.measure.state",
    "edgeopt.plugins.energy_use",
    "edgeopt.plugins.predictor",
    *(f"{_AGENT}.{name}" for name in ("child", "energy", "environment", "messages", "processes", "session", "work")),
)
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can have


def agent_file(modules: Iterable[str] = ()) -> bytes:
    """The agent, with `modules` that open files; packages around them are left empty.

    Raises `PluginError` for a module that is not there.
    """
    names = sorted({*_MODULES, *modules})
    packages = sorted({package for name in names for package in _around(name)} - set(names))
    contents = {"__main__.py": _source(f"{_AGENT}.__main__")}
    contents |= {f"{name.replace('.', '/')}/__init__.py": b"" for name in packages}
    contents |= {f"{name.replace('.', '/')}.py": _source(name) for name in names}
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name, _EARLIEST), content, zipfile.ZIP_DEFLATED)
    return written.getvalue()


def _around(module: str) -> Iterator[str]:
    while module := module.rpartition(".")[0]:
        yield module


def _source(module: str) -> bytes:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise PluginError(f"module {module}, which a plugin names for devices, is not there", hint="update the plugin")
    return Path(spec.origin).read_bytes()
