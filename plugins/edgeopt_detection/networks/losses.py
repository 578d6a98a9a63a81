"""Torchvision's own losses of its detectors, on raw heads: training needs neither their transform nor their NMS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeopt_detection.decoding.description import BoxDecoding
from edgeopt_detection.decoding.reference import anchor_corners
from edgeopt_detection.networks.crowds import hold_a_middle, without_crowds
from edgeopt_torchvision.compat import import_torchvision

_NEGATIVES = 3  # background anchors that SSD learns from, for each that holds an object
_SSD_MATCH = 0.5  # overlap from which an anchor of SSD holds an object
_RETINANET_MATCH = (0.5, 0.4)  # overlap from which an anchor holds an object, and below which it holds none
_CENTRE_RADIUS = 1.5  # of FCOS: how far from an object's middle a point learns it, in steps of its map


@dataclass(frozen=True, eq=False)
class DetectionLoss:
    """The loss of a network that ends at raw heads.

    The values are those of torchvision's SSD, RetinaNet and FCOS at their defaults.
    """

    decoding: BoxDecoding

    def __call__(
        self,
        heads: Sequence[Tensor],
        boxes: Sequence[tuple[Tensor, Tensor]],
        crowds: Sequence[Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Parts of the loss of a batch by name, to be added up.

        `boxes` are those of each image: float32 corners (k, 4) in px of the network's input, and int64 classes (k,).
        `crowds` are corners of regions in which nobody has told objects apart: anchors that lie in one, and at which no
        box is learnt, are not learnt from.
        """
        import_torchvision()
        device = heads[0].device
        anchors = torch.from_numpy(anchor_corners(self.decoding).astype(np.float32)).to(device)
        every = [anchors] * len(boxes)
        targets = [{"boxes": corners, "labels": self._columns(classes)} for corners, classes in boxes]
        outputs = dict(zip(("cls_logits", "bbox_regression", "bbox_ctrness"), heads, strict=False))
        regions = [anchors.new_zeros(0, 4)] * len(boxes) if crowds is None else crowds
        if self.decoding.scores == "softmax":
            return self._ssd(outputs, targets, every, regions)
        if self.decoding.boxes == "offsets":
            return self._retinanet(outputs, targets, every, regions)
        return self._fcos(outputs, targets, every, regions)

    def _without_crowds(
        self, outputs: dict[str, Tensor], crowds: Sequence[Tensor], anchors: Tensor, learnt: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        logits = without_crowds(outputs["cls_logits"], crowds, anchors, learnt, self.decoding.background)
        return {**outputs, "cls_logits": logits}

    def _columns(self, classes: Tensor) -> Tensor:
        """The columns of logits of classes: that of the background is passed over."""
        if self.decoding.background is None:
            return classes
        return classes + (classes >= self.decoding.background).long()

    def _coder(self) -> Any:
        from torchvision.models.detection._utils import BoxCoder

        return BoxCoder(weights=self.decoding.weights)

    # The losses are methods of torchvision's networks. They read a few attributes and no layer, which are given here:
    # a network that was quantized, or pruned, is no longer of torchvision's class.

    def _ssd(
        self,
        outputs: dict[str, Tensor],
        targets: list[dict[str, Tensor]],
        anchors: list[Tensor],
        crowds: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        from torchvision.models.detection._utils import SSDMatcher
        from torchvision.models.detection.ssd import SSD

        attributes = SimpleNamespace(box_coder=self._coder(), neg_to_pos_ratio=_NEGATIVES)
        matched = _matched(targets, anchors, SSDMatcher(_SSD_MATCH))
        outputs = self._without_crowds(outputs, crowds, anchors[0], [each >= 0 for each in matched])
        losses: dict[str, Tensor] = SSD.compute_loss(attributes, targets, outputs, anchors, matched)
        return losses

    def _retinanet(
        self,
        outputs: dict[str, Tensor],
        targets: list[dict[str, Tensor]],
        anchors: list[Tensor],
        crowds: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        from torchvision.models.detection._utils import Matcher
        from torchvision.models.detection.retinanet import RetinaNetClassificationHead, RetinaNetRegressionHead

        matched = _matched(targets, anchors, Matcher(*_RETINANET_MATCH, allow_low_quality_matches=True))
        outputs = self._without_crowds(outputs, crowds, anchors[0], [each >= 0 for each in matched])
        classes = SimpleNamespace(BETWEEN_THRESHOLDS=Matcher.BETWEEN_THRESHOLDS)
        boxes = SimpleNamespace(box_coder=self._coder(), _loss_type="l1")
        return {
            "classification": RetinaNetClassificationHead.compute_loss(classes, targets, outputs, matched),
            "bbox_regression": RetinaNetRegressionHead.compute_loss(boxes, targets, outputs, anchors, matched),
        }

    def _fcos(
        self,
        outputs: dict[str, Tensor],
        targets: list[dict[str, Tensor]],
        anchors: list[Tensor],
        crowds: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        from torchvision.models.detection._utils import BoxLinearCoder
        from torchvision.models.detection.fcos import FCOS, FCOSHead

        coder = BoxLinearCoder(normalize_by_size=True)
        head = SimpleNamespace(box_coder=coder)
        head.compute_loss = lambda *arguments: FCOSHead.compute_loss(head, *arguments)
        attributes = SimpleNamespace(center_sampling_radius=_CENTRE_RADIUS, head=head)
        points = [level.anchors for level in self.decoding.levels]
        in_boxes = [hold_a_middle(anchors[0], each["boxes"]) for each in targets]
        outputs = self._without_crowds(outputs, crowds, anchors[0], in_boxes)
        losses: dict[str, Tensor] = FCOS.compute_loss(attributes, targets, outputs, anchors, points)
        return losses


def _matched(targets: list[dict[str, Tensor]], anchors: list[Tensor], matcher: Any) -> list[Tensor]:
    """For each anchor of each image the box that it learns, or below 0."""
    from torchvision.ops import box_iou

    found = []
    for target, corners in zip(targets, anchors, strict=True):
        if target["boxes"].numel() == 0:
            found.append(torch.full((len(corners),), -1, dtype=torch.int64, device=corners.device))
        else:
            found.append(matcher(box_iou(target["boxes"], corners)))
    return found
