"""Import torchvision beside a torch build that its compiled operators were not built for.

The registry's torchvision wheel is compiled against the CUDA build of torch. Beside a CPU build its library does not
load, its operators do not exist, and `import torchvision` stops at the first fake kernel it registers for one of them
(`operator torchvision::nms does not exist`). Models, transforms and datasets need none of these operators, so here the
import goes on without those registrations.
"""

import importlib
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

_OPERATOR_NAMESPACE = "torchvision::"
# `torch.library.register_fake` is one for the whole process: two threads must not replace and restore it at once
_import_lock = threading.RLock()


def import_torchvision() -> ModuleType:
    """Import torchvision and return it, also where its compiled operators do not load.

    Where they do load, this is a plain import. Otherwise it warns once, `torchvision.ops.nms` and its relatives raise
    when called, and `nms` of this module takes the place of the first.

    Raises:
        ImportError: torchvision is not installed.

    """
    with _import_lock:
        with _missing_operators_skipped() as skipped:
            torchvision = importlib.import_module("torchvision")
        if skipped:
            warnings.warn(
                f"torchvision {torchvision.__version__} was built for another torch than {torch.__version__}: its "
                "compiled operators (NMS, RoI align, JPEG decoding) are missing. Models, transforms and datasets work "
                "without them.",
                RuntimeWarning,
                stacklevel=2,
            )
        return torchvision


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Keep the best-scored boxes that do not overlap a better one (greedy non-maximum suppression).

    Uses torchvision's compiled operator where it exists, plain torch elsewhere.

    Args:
        boxes: float [N, 4], corners (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2.
        scores: float [N].
        iou_threshold: a box that overlaps a kept one by a larger intersection over union is dropped.

    Returns:
        int64 [K], indices of the kept boxes, best score first.

    """
    if _operator_exists(f"{_OPERATOR_NAMESPACE}nms"):
        kept: torch.Tensor = torch.ops.torchvision.nms(boxes, scores, iou_threshold)
        return kept
    order = scores.argsort(descending=True, stable=True)
    overlaps = _pairwise_iou(boxes[order]) > iou_threshold
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    for rank in range(len(order)):
        if alive[rank]:
            alive[rank + 1 :] &= ~overlaps[rank, rank + 1 :]
    return order[alive]


def _pairwise_iou(boxes: torch.Tensor) -> torch.Tensor:
    """Return intersection over union of every two boxes: float [N, 4] in, float [N, N] out."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    top_left = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    bottom_right = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=-1)
    return intersection / (area[:, None] + area[None, :] - intersection)


def _operator_exists(name: str) -> bool:
    namespace, _, operator = name.partition("::")
    return hasattr(getattr(torch.ops, namespace), operator.partition(".")[0])


@contextmanager
def _missing_operators_skipped() -> Iterator[list[str]]:
    """Skips, while active, the fake kernels of absent `torchvision::` operators; yields the names it skipped."""
    skipped: list[str] = []
    register_fake = torch.library.register_fake

    def register_fake_if_present(op: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(op, str) and op.startswith(_OPERATOR_NAMESPACE) and not _operator_exists(op):
            skipped.append(op)
            return args[0] if args else _returned_unchanged
        return register_fake(op, *args, **kwargs)

    torch.library.register_fake = register_fake_if_present
    try:
        yield skipped
    finally:
        torch.library.register_fake = register_fake


def _returned_unchanged(function: Callable[..., Any]) -> Callable[..., Any]:
    return function
