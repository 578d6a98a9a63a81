"""The boxes of many images as targets: kept in files, moved with their images, and put into batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt_detection.boxes import Boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from edgeopt.plugins import Moves, Tiles

#: Of a box, so much must stay in the frame that it is learnt and looked for; of less, nobody can tell what it is.
LEAST_SEEN = 0.25
_NOTHING, _CROWD = -1, -2  # the class of a place in a batch without a box, and of a crowd region


@dataclass(frozen=True, eq=False)
class BoxTargets:
    """The boxes of images in a row: float32 `corners` (n, 4), int64 `classes` and bool `crowd` (n,), and int64 `counts`
    (images,), how many each image has.
    """

    corners: NDArray[np.float32]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, boxes: Sequence[Boxes]) -> BoxTargets:
        """Targets of one image after the other."""
        none = Boxes.of([], [])
        return cls(
            np.concatenate([none.corners, *(each.corners for each in boxes)]),
            np.concatenate([none.classes, *(each.classes for each in boxes)]),
            np.concatenate([none.crowd, *(each.crowd for each in boxes)]),
            np.asarray([len(each) for each in boxes], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, indices: slice | NDArray[np.int64]) -> BoxTargets:
        chosen = np.arange(len(self))[indices]
        ends = np.cumsum(self.counts)
        rows = [np.arange(ends[image] - self.counts[image], ends[image]) for image in chosen]
        places = np.concatenate([np.empty(0, dtype=np.int64), *rows])
        return BoxTargets(self.corners[places], self.classes[places], self.crowd[places], self.counts[chosen])

    def boxes(self) -> list[Boxes]:
        """The boxes of each image."""
        ends = np.cumsum(self.counts)
        parts = [slice(end - count, end) for end, count in zip(ends.tolist(), self.counts.tolist(), strict=True)]
        return [
            Boxes(np.asarray(self.corners[part]), np.asarray(self.classes[part]), np.asarray(self.crowd[part]))
            for part in parts
        ]

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """The four arrays by name."""
        return {"corners": self.corners, "classes": self.classes, "crowd": self.crowd, "counts": self.counts}


def moved_boxes(boxes: Boxes, geometry: Any) -> Boxes:
    """Boxes in the frame of a network, cut at its edges; where less than a quarter of one is left, it counts as a crowd
    region: finding it is neither right nor wrong.
    """
    whole = geometry.boxes_to_network(boxes.corners)
    cut = geometry.boxes_to_network(boxes.corners, clipped=True)
    left, before = _areas(cut), _areas(whole)
    there = left > 0
    barely = left < LEAST_SEEN * before
    return Boxes(cut[there].astype(np.float32), boxes.classes[there], (boxes.crowd | barely)[there])


def batch_of(targets: BoxTargets) -> dict[str, Tensor]:
    """Targets as tensors of one shape: float32 corners (n, most, 4), and int64 classes (n, most), -1 where there is no
    box, and -2 of crowd regions, in which nothing is learnt.
    """
    import torch  # heavy; whoever trains has imported it

    boxes = targets.boxes()
    most = max(1, *map(len, boxes)) if boxes else 1
    corners = np.zeros((len(boxes), most, 4), dtype=np.float32)
    classes = np.full((len(boxes), most), _NOTHING, dtype=np.int64)
    for image, each in enumerate(boxes):
        count = len(each)
        corners[image, :count] = each.corners
        classes[image, :count] = np.where(each.crowd, _CROWD, each.classes)
    return {"corners": torch.from_numpy(corners), "classes": torch.from_numpy(classes)}


def boxes_of(batch: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Corners (k, 4) and classes (k,) of each image of a batch."""
    pairs = zip(batch["corners"], batch["classes"], strict=True)
    return [(corners[classes >= 0], classes[classes >= 0]) for corners, classes in pairs]


def crowds_of(batch: Mapping[str, Tensor]) -> list[Tensor]:
    """Corners (k, 4) of the crowd regions of each image of a batch."""
    return [corners[classes == _CROWD] for corners, classes in zip(batch["corners"], batch["classes"], strict=True)]


def tiled_boxes(batch: Mapping[str, Tensor], tiles: Tiles) -> dict[str, Tensor]:
    """A batch after images were put together: of each box and crowd region, what is seen of it in each tile. A box of
    which that is less than a quarter becomes a crowd region, as in `moved_boxes`.

    `seen`, float32 (n, most), is the share of each box that is left, so that `augmented_boxes` judges it as a whole.
    """
    import torch  # as above

    corners, classes = batch["corners"], batch["classes"]
    most, count = classes.shape[1], tiles.sources.shape[1]
    whole = tiles.points(corners.reshape(len(corners), 2 * most, 2)).reshape(-1, count, most, 4)
    places = tiles.places.to(whole)[:, :, None]
    cut = torch.minimum(torch.maximum(whole, places[..., [0, 1, 0, 1]]), places[..., [2, 3, 2, 3]])
    shown = _as_seen(classes[tiles.sources], cut, whole)
    shown["seen"] = _area(cut) / _area(whole).clamp(min=1e-6)
    before = {"corners": corners, "classes": classes, "seen": torch.ones_like(corners[..., 0])}
    together = {}
    for name, values in before.items():
        together[name] = torch.cat([values, torch.zeros_like(values).repeat_interleave(count - 1, dim=1)], dim=1)
        if name == "classes":
            together[name][:, most:] = _NOTHING
        together[name][tiles.made] = shown[name].flatten(1, 2)
    there = together["classes"] != _NOTHING
    order = there.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : max(1, int(there.sum(dim=1).max()))]
    rows = torch.arange(len(order))[:, None]
    return {name: values[rows, order] for name, values in together.items()}


def augmented_boxes(batch: Mapping[str, Tensor], moves: Moves) -> dict[str, Tensor]:
    """A batch after its images were moved: of each box and crowd region, what its moved corners span, cut at the edges.
    A box of which less than a quarter stays in the frame becomes a crowd region, as in `moved_boxes`.
    """
    import torch  # as above

    corners = batch["corners"]
    places = corners[..., [0, 1, 2, 1, 2, 3, 0, 3]].reshape(len(corners), -1, 2)
    points = moves.points(places).reshape(len(corners), -1, 4, 2)
    spanned = torch.cat([points.amin(dim=2), points.amax(dim=2)], dim=2)
    limits = torch.tensor([moves.width, moves.height] * 2, dtype=spanned.dtype, device=spanned.device)
    cut = torch.minimum(spanned.clamp(min=0), limits)
    return _as_seen(batch["classes"], cut, spanned, batch.get("seen"))


def _as_seen(classes: Tensor, cut: Tensor, whole: Tensor, seen: Tensor | None = None) -> dict[str, Tensor]:
    """Corners and classes of boxes, (..., 4) and (...), of which `cut` is left; `whole` was a share `seen` of a box."""
    import torch  # as above

    left, before = _area(cut), _area(whole)
    stays = (classes != _NOTHING) & (left > 0)
    barely = stays & (left * (1.0 if seen is None else seen) < LEAST_SEEN * before)
    return {
        "corners": torch.where(stays[..., None], cut, torch.zeros_like(cut)),
        "classes": classes.masked_fill(barely, _CROWD).masked_fill(~stays, _NOTHING),
    }


def _area(corners: Tensor) -> Tensor:
    return (corners[..., 2:] - corners[..., :2]).clamp(min=0).prod(dim=-1)


def _areas(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    sides = np.maximum(corners[:, 2:] - corners[:, :2], 0)
    areas: NDArray[np.float64] = sides[:, 0] * sides[:, 1]
    return areas
