"""Files of segmenters that end at classes, opened in their runtimes, and what cannot be done with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeopt.cards.reading import card_of
from edgeopt.errors import ExportError
from edgeopt.export.make import make_artifact
from edgeopt.measure.answers import feeder, file_outputs, verify
from edgeopt.networks.capture import program_outputs, to_program
from edgeopt.plugins import ExporterPlugin, Form, ModelState, Role
from edgeopt.plugins.registry import load_registry
from edgeopt.progress import Silent
from edgeopt.recipe.card_task import task_of_card
from edgeopt.recipe.lookup import resolve
from edgeopt.testing.values import tiny_data
from edgeopt_segmentation.parts.shares import masks_in
from edgeopt_segmentation.task import Segmentation

REGISTRY = load_registry()
NAMES = ("ground", "disc", "ring")
DATA = tiny_data(image_size=24)


class SmallSegmenter(nn.Module):
    """Logits of a quarter of the places, brought to all."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Conv2d(3, len(NAMES), 3, stride=2, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(self.see(images), scale_factor=2, mode="bilinear", align_corners=False)


@pytest.fixture(scope="module")
def state() -> ModelState:
    torch.manual_seed(3)
    module = SmallSegmenter().eval()
    plain = ModelState(module, Form.MODULE, Segmentation(), NAMES, DATA.preprocessing, output_names=("masks",))
    return to_program(plain, DATA.validation)


@pytest.mark.parametrize("exporter", ["onnx", "tflite", "executorch"])
def test_a_file_gives_the_classes_of_its_program(exporter: str, state: ModelState, tmp_path: Path) -> None:
    use = resolve(ExporterPlugin, exporter, {"ends": "classes", "input": {"kind": "uint8-nhwc"}}, REGISTRY)
    artifact = make_artifact(
        use, state, tmp_path, role=Role.BASELINE, recipe={}, calibration=DATA.calibration, progress=Silent(), seed=0
    )
    (info,) = artifact.exported.outputs
    assert (info.name, info.dtype, info.shape[1:], info.scale) == ("masks", "uint8", (24, 24), None)
    feed = feeder(artifact.exported.input.holds, state.preprocessing)
    with use.plugin.opened(artifact.path, 1) as predictor:
        outputs = file_outputs(predictor, DATA.validation, feed, Silent(), "")
    assert outputs[0].dtype == np.uint8
    program = program_outputs(state, DATA.validation, Silent(), "")
    truth = masks_in(program).astype(np.uint8)
    assert len(np.unique(truth)) > 1
    held = verify(state.task, outputs, program, truth, ("masks",))
    assert held.agreement >= 0.999
    assert held.max_logit_difference <= 0.001, "the share of places of another class"
    assert held.scores[0].value >= 0.99
    card = card_of(artifact.path)
    assert (card.outputs[0].dtype, card.self_test) == ("uint8", None)
    task = task_of_card(card, REGISTRY, "the file")
    assert task.unfit([(1, *info.shape[1:])], 1, len(NAMES)) is None
    assert np.array_equal(task.drawings(outputs, NAMES)[0].mask, outputs[0][0])


def test_a_byte_has_no_more_classes_than_it_tells(state: ModelState, tmp_path: Path) -> None:
    use = resolve(ExporterPlugin, "onnx", {"ends": "classes"}, REGISTRY)
    many = dataclasses.replace(state, classes=tuple(map(str, range(300))))
    with pytest.raises(ExportError, match="a byte, which tells 256 classes, and there are 300"):
        make_artifact(
            use, many, tmp_path, role=Role.BASELINE, recipe={}, calibration=DATA.calibration, progress=Silent(), seed=0
        )
