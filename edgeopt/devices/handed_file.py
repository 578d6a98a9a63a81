"""Opens a file in a process that has edgeopt: whatever its exporter, also one that says nothing of devices."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from edgeopt.measure.fed_file import FedFile
from edgeopt.plugins.handed import handed
from edgeopt.plugins.predictor import Predictor


def prepare(file: Path | str) -> None:
    """Imports what opening imports; `file` holds a `FedFile`."""
    for module in handed(FedFile, Path(file)).exporter.runtime_modules:
        import_module(module)


def open_file(file: Path, threads: int) -> Predictor:
    """The file, opened as everywhere in edgeopt."""
    fed = handed(FedFile, file)
    return fed.exporter.open(fed.path, threads)
