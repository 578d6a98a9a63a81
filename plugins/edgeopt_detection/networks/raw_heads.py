"""A detector without its transform and its NMS: what a file can hold, and the description of what was left out."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from edgeopt.plugins import ExportError, Problem
from edgeopt_detection.decoding.description import AnchorLevel, BoxDecoding, Candidates
from edgeopt_torchvision.compat import import_torchvision

_HEADS = ("cls_logits", "bbox_regression", "bbox_ctrness")  # torchvision's names, in the order of `BoxDecoding.outputs`
_INSTEAD = "export SSDLite, RetinaNet or FCOS of torchvision, which edgeopt splits at their raw heads"


class RawHeads(nn.Module):
    """A backbone and the heads on its feature maps, the heads of all maps one after the other.

    Takes float32 images (n, 3, height, width), normalized. Gives float32 class logits (n, anchors, columns), boxes
    (n, anchors, 4) and, for FCOS, centerness (n, anchors, 1).
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.training = head.training

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        heads = self.head(self.maps(images))
        return tuple(heads[name] for name in _HEADS if name in heads)

    def maps(self, images: Tensor) -> list[Tensor]:
        """The feature maps that the heads stand on, the largest first."""
        maps = self.backbone(images)
        return [maps] if isinstance(maps, Tensor) else list(maps.values())


def split_detector(detector: nn.Module, height: int, width: int) -> tuple[RawHeads, BoxDecoding]:
    """A detector of torchvision cut at its raw heads, for inputs of one size in px; the weights are shared.

    The description says what the detector itself would have done next: its anchors, thresholds and counts. Its
    transform is left out too: images come resized and normalized, as the recipe says.

    Raises `ExportError` for detectors of two stages, and for networks of other makers that find boxes themselves.
    """
    import_torchvision()
    from torchvision.models.detection.fcos import FCOS
    from torchvision.models.detection.retinanet import RetinaNet
    from torchvision.models.detection.ssd import SSD

    if not isinstance(detector, SSD | RetinaNet | FCOS):
        _refuse(detector)
    network = RawHeads(detector.backbone, detector.head)
    shapes = _map_shapes(network, height, width)
    common: dict[str, Any] = {
        "height": height,
        "width": width,
        "score_threshold": detector.score_thresh,
        "iou_threshold": detector.nms_thresh,
        "most": detector.detections_per_img,
    }
    if isinstance(detector, SSD):
        columns = detector.head.classification_head.num_columns
        return network, BoxDecoding(
            classes=columns - 1,
            levels=_default_boxes(detector.anchor_generator, shapes, height, width),
            scores="softmax",
            background=0,
            boxes="offsets",
            weights=detector.box_coder.weights,
            scale_limit=detector.box_coder.bbox_xform_clip,
            candidates=Candidates(per="class", most=detector.topk_candidates),
            **common,
        )
    common |= {
        "classes": detector.head.classification_head.num_classes,
        "levels": _grids(detector.anchor_generator, shapes, height, width),
        "candidates": Candidates(per="level", most=detector.topk_candidates),
    }
    if isinstance(detector, FCOS):
        return network, BoxDecoding(scores="sigmoid-centerness", boxes="distances", **common)
    coder = detector.box_coder
    return network, BoxDecoding(
        scores="sigmoid", boxes="offsets", weights=coder.weights, scale_limit=coder.bbox_xform_clip, **common
    )


def require_raw_heads(network: nn.Module) -> None:
    """Raises `ExportError` for a network that resizes its images, or removes overlapping boxes, itself."""
    import_torchvision()
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    if any(isinstance(module, GeneralizedRCNNTransform) for module in network.modules()):
        _refuse(network)


def _refuse(detector: nn.Module) -> NoReturn:
    import_torchvision()
    from torchvision.models.detection.fcos import FCOS
    from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
    from torchvision.models.detection.retinanet import RetinaNet
    from torchvision.models.detection.ssd import SSD

    name = type(detector).__name__
    if isinstance(detector, SSD | RetinaNet | FCOS):
        raise ExportError(
            Problem(
                f"{name} resizes its images and removes overlapping boxes itself, and takes and gives lists",
                "give edgeopt the detector to split: split_detector(detector, height, width) gives a network that ends "
                "at its raw heads, and the description of the rest",
            )
        )
    if isinstance(detector, GeneralizedRCNN):
        raise ExportError(
            Problem(
                f"{name} has two stages: between them it removes overlapping boxes and cuts maps into pieces, as many "
                "as it found, which no file of fixed shapes holds",
                _INSTEAD,
            )
        )
    raise ExportError(
        Problem(
            f"{name} is no detector that can be split: where its raw heads are is known for torchvision's alone",
            f"{_INSTEAD}; of another network, export the part that gives class logits (n, anchors, classes) and box "
            "offsets (n, anchors, 4), without resizing and without NMS",
        )
    )


def _map_shapes(network: RawHeads, height: int, width: int) -> list[tuple[int, int]]:
    """(height, width) of each feature map, found by one image of zeros; the network's statistics stay as they are."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            parameter = next(network.parameters())
            image = torch.zeros(1, 3, height, width, device=parameter.device, dtype=parameter.dtype)
            return [(int(each.shape[-2]), int(each.shape[-1])) for each in network.maps(image)]
    finally:
        for module, mode in modes:
            module.training = mode


def _default_boxes(generator: Any, shapes: list[tuple[int, int]], height: int, width: int) -> tuple[AnchorLevel, ...]:
    """The anchors of SSD: sizes are shares of the image, places the middles of cells."""
    levels = []
    for number, (rows, columns) in enumerate(shapes):
        sizes = generator._wh_pairs[number].double()  # noqa: SLF001 - nothing public tells them
        sizes = sizes.clamp(0, 1) if generator.clip else sizes
        step = (height / rows, width / columns)
        if generator.steps is not None:
            step = (float(generator.steps[number]),) * 2
        halves = [(0.5 * share_x * width, 0.5 * share_y * height) for share_x, share_y in sizes.tolist()]
        levels.append(
            AnchorLevel(
                rows=rows,
                columns=columns,
                origin=(0.5 * step[0], 0.5 * step[1]),
                step=step,
                boxes=tuple((-x, -y, x, y) for x, y in halves),
            )
        )
    return tuple(levels)


def _grids(generator: Any, shapes: list[tuple[int, int]], height: int, width: int) -> tuple[AnchorLevel, ...]:
    """The anchors of RetinaNet and the points of FCOS: whole px, from the corner of the image."""
    return tuple(
        AnchorLevel(
            rows=rows,
            columns=columns,
            origin=(0.0, 0.0),
            step=(float(height // rows), float(width // columns)),
            boxes=tuple(tuple(box) for box in boxes.tolist()),
        )
        for (rows, columns), boxes in zip(shapes, generator.cell_anchors, strict=True)
    )
