"""Small files of both runtimes of the browser, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeopt.export.make import make_artifact
from edgeopt.plugins import ExporterPlugin, ExportResult
from edgeopt.plugins.registry import load_registry
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import tiny_data, tiny_program
from edgeopt.types import Role


@dataclass(frozen=True)
class WebFile:
    """A file of an exporter of the browser, as a run has it."""

    exporter: ExporterPlugin
    path: Path
    exported: ExportResult


def made(name: str, folder: Path, **options) -> WebFile:
    """A file of a small program, with its card beside it."""
    use = resolve(ExporterPlugin, name, options, load_registry())
    made = make_artifact(
        use,
        tiny_program(),
        folder,
        role=Role.OPTIMIZED,
        recipe={},
        calibration=tiny_data().calibration,
        progress=Silent(),
        seed=0,
    )
    made.path.with_name("card.json").write_text(made.card.to_json())
    return WebFile(use.plugin, made.path, made.exported)
