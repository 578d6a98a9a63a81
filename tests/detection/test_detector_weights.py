"""Detectors that start from torchvision's weights for COCO, or from a file of that form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from edgeopt.testing import tiny_data
from edgeopt_detection.detector import build
from edgeopt_detection.networks.build import build_detector
from edgeopt_detection.options import DetectorOptions
from edgeopt_detection.task import Detection
from edgeopt_torchvision.compat import import_torchvision

DATA = replace(tiny_data(image_size=64), task=Detection())  # of three classes


def test_weights_for_coco_are_loaded_but_for_the_class_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once from a file, and once by the name that torchvision has for them."""
    torch.manual_seed(1)
    state = build_detector("ssdlite", "mobilenet_v3_large", 90).state_dict()
    file = tmp_path / "ssdlite320_mobilenet_v3_large_coco-a79551df.pth"
    torch.save(state, file)
    weights = import_torchvision().models.detection.SSDLite320_MobileNet_V3_Large_Weights
    monkeypatch.setattr(weights, "get_state_dict", lambda *_, **__: state)
    for name in (str(file), "COCO_V1"):
        made = build(DetectorOptions(arch="ssdlite", weights=name), DATA)
        own = made.module.state_dict()
        unlike = {each for each, value in own.items() if not torch.equal(value, state[each])} if own else {"all"}
        assert unlike == {
            f"head.classification_head.module_list.{level}.1.{part}"
            for level in range(6)
            for part in ("weight", "bias")
        }
        assert set(made.untrained) == {f"head.classification_head.module_list.{level}.1" for level in range(6)}
        assert made.history[0].facts["weights"] == name
        assert made.imports[0] == "edgeopt_torchvision.loaded"  # else who reads it imports torchvision plainly


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "IMAGENET1K_V1"}, '"DEFAULT" and "COCO_V1" for ssdlite on mobilenet_v3_large'),
        ({"arch": "fcos", "backbone": "resnet18", "weights": "COCO_V1"}, "none of its own for fcos on resnet18"),
        ({"arch": "fcos", "anchors": (0.1, 0.5)}, "anchors are those of ssdlite"),
        ({"anchors": (0.5, 0.1)}, "from the smaller to the larger"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DetectorOptions(**options)


def test_anchors_are_as_large_as_asked() -> None:
    made = build(DetectorOptions(anchors=(0.1, 0.6)), DATA)
    first, last = made.task.decoding.levels[0], made.task.decoding.levels[-1]
    assert first.boxes[0] == pytest.approx((-3.2, -3.2, 3.2, 3.2))  # a tenth of 64 px
    assert last.boxes[0] == pytest.approx((-19.2, -19.2, 19.2, 19.2))
