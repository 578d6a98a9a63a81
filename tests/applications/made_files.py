"""Files made once, for the tests of cards, of what is printed from them and of apps."""

from __future__ import annotations

import fcntl
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeopt.export.make import make_artifact
from edgeopt.export.self_test import file_answers, images_of
from edgeopt.measure.answers import feeder
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.preprocessing import Preprocessing
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import tiny_data, tiny_program
from edgeopt.types import Role

SIZE = 32
PREPROCESSING = Preprocessing(SIZE, resize=40, crop=SIZE, interpolation="bicubic", background=(10, 200, 30))


def made_files(folder: Path) -> dict[str, Path]:
    """A float .onnx and a .pte that takes pixels, each with the card beside it that a run would leave there.

    They are made once in `folder`, for all processes that ask.
    """
    made = {"onnx": folder / "onnx" / "model.onnx", "executorch": folder / "executorch" / "model.pte"}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            for path in made.values():
                path.parent.mkdir()
            make_file(folder / "onnx", "onnx")
            make_file(folder / "executorch", "executorch", input={"kind": "uint8-nhwc"})
            (folder / "done").touch()
    return made


def make_file(folder: Path, use: str, **options: object) -> Path:
    """A file of the tiny network by an exporter of that name."""
    data = tiny_data(image_size=SIZE)
    exporter = resolve(ExporterPlugin, use, options, load_registry())
    state = replace(tiny_program(data, largest_batch=1), preprocessing=PREPROCESSING)
    artifact = make_artifact(
        exporter,
        state,
        folder,
        role=Role.OPTIMIZED,
        recipe={"name": "tiny"},
        calibration=data.calibration,
        progress=Silent(),
        seed=0,
    )
    feed = feeder(artifact.exported.input.holds, PREPROCESSING)
    with exporter.plugin.opened(artifact.path, 1) as predictor:
        logits = [predictor.predict(feed(image[None]))[0] for image in images_of(artifact.card).images]
    card = artifact.card.with_file_answers(file_answers(artifact.card, (np.concatenate(logits),)))
    (folder / "card.json").write_text(card.to_json())
    return artifact.path
