"""Small ONNX files that find patches of colours, for every task with places, and what they answer for an image."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from task_cards import Expected, expected, registry

from edgeopt.cards.card import Card
from edgeopt.cards.reading import card_of
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.preprocessing import Preprocessing

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))
from found_runs import make_found_run, patches

KINDS = ("detection", "segmentation", "multi-label")


@dataclass(frozen=True)
class Asked:
    """A file, an image, what the file returns for it in edgeopt's own predictor, and what its task makes of that."""

    file: Path
    card: Card
    image: Image.Image
    arrays: tuple[np.ndarray, ...]
    wanted: Expected


def asked(kind: str, folder: Path) -> Asked:
    """A file of a kind of task, made in `folder`, and a wide image with a red and a blue patch."""
    file = make_found_run(folder, kind, opened_by="onnxruntime") / "onnx/baseline/model.onnx"
    content = patches(90, 40, (8, 8, 40, 30, (255, 0, 0)), (50, 10, 80, 36, (0, 0, 255)))
    image, card = Image.open(io.BytesIO(content)), card_of(file)
    preprocessing = Preprocessing.from_json(card.preprocessing)
    values = preprocessing.normalize(preprocessing.pixels(image)[None])
    with registry().get(ExporterPlugin, "onnx").opened(file, 1) as predictor:
        arrays = predictor.predict(values)
    return Asked(file, card, image, arrays, expected(card, arrays, *image.size))
