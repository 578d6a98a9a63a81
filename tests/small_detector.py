"""A detector of two small maps, and generated boxes that it learns from in a second: for tests of everything that
makes networks smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgeopt.options import Augmentation
from edgeopt.preprocessing import Preprocessing
from edgeopt.types import Form, ModelState, TrainingData
from edgeopt_detection.decoding.description import AnchorLevel, BoxDecoding, Candidates
from edgeopt_detection.shapes import SHAPES, make_shape_boxes
from edgeopt_detection.targets import BoxTargets
from edgeopt_detection.task import Detection

EDGE = 48
PREPROCESSING = Preprocessing(image_size=EDGE, resize=EDGE, crop=EDGE)
DECODING = BoxDecoding(
    height=EDGE,
    width=EDGE,
    classes=len(SHAPES),
    levels=(
        AnchorLevel(rows=6, columns=6, origin=(4, 4), step=(8, 8), boxes=((-6, -6, 6, 6), (-9, -5, 9, 5))),
        AnchorLevel(rows=3, columns=3, origin=(8, 8), step=(16, 16), boxes=((-10, -10, 10, 10), (-7, -14, 7, 14))),
    ),
    scores="softmax",
    background=0,
    boxes="offsets",
    weights=(10, 10, 5, 5),
    scale_limit=4.135166556742356,
    score_threshold=0.05,
    iou_threshold=0.5,
    candidates=Candidates(per="class", most=20),
    most=20,
)


class SmallDetector(nn.Module):
    """Raw heads as torchvision's SSDLite gives them: views, permuted, of all maps one after the other."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.stem = nn.Sequential(_block(3, width), _block(width, width), _block(width, 2 * width))
        self.further = _block(2 * width, 2 * width)
        self.logits = nn.ModuleList(self._head(2 * width, DECODING.columns) for _ in range(2))
        self.boxes = nn.ModuleList(self._head(2 * width, 4) for _ in range(2))

    @staticmethod
    def _head(channels: int, numbers: int) -> nn.Sequential:
        depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        return nn.Sequential(depthwise, nn.BatchNorm2d(channels), nn.ReLU6(), nn.Conv2d(channels, 2 * numbers, 1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first = self.stem(images)
        maps = [first, self.further(first)]
        return _joined(maps, self.logits, DECODING.columns), _joined(maps, self.boxes, 4)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU6())


def _joined(maps: Sequence[torch.Tensor], heads: nn.ModuleList, numbers: int) -> torch.Tensor:
    found = []
    for each, head in zip(maps, heads, strict=True):
        values = head(each)
        values = values.view(values.shape[0], -1, numbers, *values.shape[-2:]).permute(0, 3, 4, 1, 2)
        found.append(values.reshape(values.shape[0], -1, numbers))
    return torch.cat(found, dim=1)


@dataclass(frozen=True, eq=False)
class BoxSplit:
    """Images in memory and their boxes."""

    images: NDArray[np.uint8]
    targets: BoxTargets

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.zeros(len(self), dtype=np.int64)

    def pixels(self, indices: Sequence[int] | slice) -> NDArray[np.uint8]:
        return self.images[indices]


def box_data(count: int = 32) -> TrainingData:
    """As many images of shapes for training, and half as many for the other splits."""
    drawn = make_shape_boxes(2 * count, EDGE, 0).splits["train"]
    images = np.stack([np.asarray(drawn[index]) for index in range(2 * count)])
    targets = BoxTargets.of([drawn.target(index) for index in range(2 * count)])

    def part(start: int, end: int) -> Any:
        return BoxSplit(images[start:end], targets[start:end])

    middle = count + count // 2
    return TrainingData(
        classes=tuple(SHAPES),
        preprocessing=PREPROCESSING,
        train=part(0, count),
        calibration=part(count, middle),
        validation=part(middle, 2 * count),
        fingerprint=f"small-boxes-{count}",
        augmentation=Augmentation(),
        task=Detection(),
    )


def detector_state(module: nn.Module | None = None) -> ModelState:
    """The state of a network of raw heads, drawn from a seed."""
    torch.manual_seed(0)
    return ModelState(
        module or SmallDetector(),
        Form.MODULE,
        Detection(shown_score=0.05, decoding=DECODING),
        tuple(SHAPES),
        PREPROCESSING,
        output_names=DECODING.outputs,
    )
