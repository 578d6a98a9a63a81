"""How files end at boxes, as exporters are told. Light at the top."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.plugins import Ending, OnnxTail, TfliteTail
from edgeopt_detection.decoding.description import BoxDecoding
from edgeopt_detection.endings.outputs import FOUND, rows_of

if TYPE_CHECKING:
    from torch import nn

BOXES = "boxes"
"""What `ends` of an export calls them."""

_MOST_IN_TENSORRT = 4096  # of all boxes and classes of an image, EfficientNMS looks at the best so many


@dataclass(frozen=True)
class BoxesEnding(Ending):
    """Decoding, the removal of overlaps and the choice of the best. `decoding` is None before there is a network."""

    decoding: BoxDecoding | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        return FOUND

    @property
    def taken(self) -> tuple[str, ...]:
        return ("placed", "scored")

    def refused(self, form: str, classes: int | None) -> str | None:  # noqa: ARG002 - any number of classes
        if form not in ("onnx", "tflite", "tensorrt"):
            return (
                "it takes nothing behind a program but layers of PyTorch, whose removal of overlapping boxes gives as "
                "many as an image has, and a file's shapes are fixed"
            )
        if form == "tflite" and self.decoding is not None and self.decoding.iou_threshold == 0:
            return "TFLite_Detection_PostProcess takes no overlap of 0 as the most that two boxes may share"
        if form == "tensorrt" and self.decoding is not None and rows_of(self.decoding) > _MOST_IN_TENSORRT:
            return (
                f"TensorRT's EfficientNMS looks at the best {_MOST_IN_TENSORRT:,} boxes of an image, and its decoding "
                f"keeps up to {rows_of(self.decoding):,}"
            )
        return None

    def layers(self, form: str) -> nn.Module | None:
        if form != "tflite":
            return None
        from edgeopt_detection.endings.placed_boxes import PlacedBoxes  # torch is heavy

        return PlacedBoxes(self._decoding)

    def tail(self, form: str) -> OnnxTail | TfliteTail:
        if form == "tflite":
            from edgeopt_detection.endings.tflite_tail import tflite_tail  # the exporter has its packages

            return tflite_tail(self._decoding)
        if form == "tensorrt":
            from edgeopt_detection.endings.tensorrt_tail import tensorrt_tail  # as above

            return tensorrt_tail(self._decoding)
        from edgeopt_detection.endings.onnx_tail import onnx_tail  # as above

        return onnx_tail(self._decoding)

    @property
    def _decoding(self) -> BoxDecoding:
        if self.decoding is None:
            raise ValueError("how raw heads become boxes is said by the model, and there is none yet")
        return self.decoding
