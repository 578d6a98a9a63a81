"""A small .tflite file, for the tests of the exporter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from small_programs import CLASSES, SIZE

from edgeopt.export.make import Artifact, make_artifact
from edgeopt.plugins.use import Use
from edgeopt.progress import Silent
from edgeopt.testing import tiny_data
from edgeopt.types import ModelState, Role
from edgeopt_tflite.options import TfliteOptions
from edgeopt_tflite.plugin import edgeopt_exporters


def export(state: ModelState, folder: Path, **options: Any) -> Artifact:
    """The file of a small program."""
    (plugin,) = edgeopt_exporters()
    return make_artifact(
        Use(plugin, TfliteOptions(**options)),
        state,
        folder,
        role=Role.OPTIMIZED,
        recipe={"name": "small"},
        calibration=tiny_data(CLASSES, SIZE).calibration,
        progress=Silent(),
        seed=0,
    )
