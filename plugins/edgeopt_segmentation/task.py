"""What a network for segmentation is asked: its loss, its scores and its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeopt.plugins import Drawing, Ending, Score, ScoreKind, Scores, Task, in_parts
from edgeopt_segmentation.ending import CLASSES, ClassesEnding
from edgeopt_segmentation.parts.shares import IGNORED, MaskAnswer, answers, masks_in

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from edgeopt.plugins import Moves, Outputs, Section, Tiles
    from edgeopt_segmentation.scores import Overlaps

    Masks = NDArray[np.uint8]  # (n, height, width)

_ALIKE = 0.99  # of the places of an image: two masks that nobody tells apart


@dataclass(frozen=True)
class Segmentation(Task):
    """A class for each place of an image: cross-entropy and Dice, mean IoU with an interval over images.

    Targets are masks, uint8 (n, height, width), in which 255 is a place that nobody has judged. The one output are
    logits, float (n, classes, height, width), or the classes themselves, integers (n, height, width).
    """

    dice: float = 0.5
    right_from: float = 0.5
    name: str = "segmentation"
    score_kinds: tuple[ScoreKind, ...] = (ScoreKind("miou", "mean IoU"), ScoreKind("pixel_accuracy"))

    @property
    def is_placed(self) -> bool:
        """A mask goes along with its image."""
        return True

    @property
    def can_be_tiled(self) -> bool:
        """Masks are put together as their images are."""
        return True

    # ---- targets

    def wrong(self, target: Any, classes: int) -> str | None:
        """Values that no class has."""
        import numpy as np  # heavy; whoever has images has imported it

        mask = np.asarray(target)
        if mask.ndim != 2 or mask.dtype != np.uint8:
            return f"its mask is {mask.dtype} {mask.shape}, not uint8 (height, width)"
        found = np.unique(mask)
        strange = found[(found >= classes) & (found != IGNORED)]
        return f"its mask has the value {strange[0]}, which is none of the {classes} classes" if len(strange) else None

    def relabelled(self, target: Any, places: Mapping[int, int]) -> Any:
        """The mask with the new numbers; places of other classes are ignored."""
        import numpy as np  # as above

        table = np.full(256, IGNORED, np.uint8)
        for old, new in places.items():
            table[old] = new
        return table[target]

    def moved(self, target: Any, geometry: Any) -> Any:
        """The mask in the frame of the network: the nearest value, ignored where the image does not reach."""
        from edgeopt_segmentation.places import moved  # NumPy

        return moved(target, geometry, IGNORED)

    def collected(self, targets: Sequence[Any]) -> Masks:
        """Masks, uint8 (n, height, width)."""
        import numpy as np  # as above

        return np.stack(targets).astype(np.uint8, copy=False)

    def membership(self, targets: Masks, classes: int) -> NDArray[np.bool_]:
        """The classes that some place of an image has."""
        import numpy as np  # as above

        found = np.zeros((len(targets), classes), dtype=bool)
        for has, mask in zip(found, targets, strict=True):
            has[[value for value in np.unique(mask).tolist() if value < classes]] = True
        return found

    # ---- training

    def batch(self, targets: Masks) -> Tensor:
        """Masks, int64 (n, height, width)."""
        import numpy as np  # as above
        import torch

        return torch.from_numpy(np.array(targets)).long()

    def augmented(self, batch: Tensor, moves: Moves) -> Tensor:
        """Masks that were moved as their images."""
        return moves.masks(batch, IGNORED)

    def tiled(self, batch: Tensor, tiles: Tiles) -> Tensor:
        """Masks that were put together as their images."""
        return tiles.masks(batch)

    def loss(self, outputs: tuple[Tensor, ...], batch: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy of the judged places, mean over them, and a share of Dice."""
        from torch.nn.functional import cross_entropy  # torch is heavy; whoever has a tensor has imported it

        logits = outputs[0]
        judged = (batch != IGNORED).sum().clamp(min=1)
        entropy = (
            cross_entropy(logits, batch, ignore_index=IGNORED, label_smoothing=label_smoothing, reduction="sum")
            / judged
        )
        return entropy if not self.dice else (1 - self.dice) * entropy + self.dice * _dice(logits, batch)

    def soft_loss(self, outputs: tuple[Tensor, ...], teacher: tuple[Tensor, ...], temperature: float) -> Tensor:
        """Kullback-Leibler divergence of each place between softened answers, times the temperature squared.

        Source: G. Hinton, O. Vinyals and J. Dean, "Distilling the knowledge in a neural network", 2015.
        """
        from torch.nn.functional import kl_div, log_softmax  # as above

        own = log_softmax(outputs[0].float() / temperature, dim=1)
        other = log_softmax(teacher[0].float() / temperature, dim=1)
        places = own.numel() // own.shape[1]
        return kl_div(own, other, reduction="sum", log_target=True) / places * temperature**2

    # ---- answers

    def unfit(self, shapes: Sequence[tuple[int, ...]], images: int, classes: int | None) -> str | None:
        """Anything but logits (n, classes, height, width), or classes (n, height, width)."""
        if len(shapes) != 1:
            return f"{len(shapes)} outputs for {images} images"
        (shape,) = shapes
        if shape and shape[0] == images and (len(shape) == 3 or (len(shape) == 4 and classes in (None, shape[1]))):
            return None
        return f"{shape} for {images} images, not logits (batch, {classes or 'classes'}, height, width)"

    def scores(self, outputs: Outputs, targets: Masks) -> Scores:
        """Mean IoU over the classes, and the share of judged places that have their class."""
        found = self._overlaps(outputs, targets)
        apart = found.intervals()
        miou, accuracy = self.score_kinds
        return Scores(
            (
                Score(found.mean, apart.mean, len(targets), miou),
                Score(found.accuracy, apart.accuracy, len(targets), accuracy),
            )
        )

    def right(self, outputs: Outputs, targets: Masks) -> NDArray[np.bool_]:
        """Whether the mean IoU of an image's classes is large enough."""
        return self.grades(outputs, targets) >= self.right_from

    def grades(self, outputs: Outputs, targets: Masks) -> NDArray[np.float64]:
        """The mean IoU of each image's classes."""
        return self._overlaps(outputs, targets).by_image

    def alike(self, outputs: Outputs, reference: Outputs) -> NDArray[np.bool_]:
        """Whether at least 99 % of an image's places have the same class."""
        return _same_places(outputs, reference) >= _ALIKE

    def agreement(self, outputs: Outputs, reference: Outputs) -> float:
        """The share of places with the same class."""
        return float(_same_places(outputs, reference).mean())

    def near_ties(self, outputs: Outputs, reference: Outputs, margins: Sequence[float]) -> int:
        """Images of another mask that is alike once places are left out whose two best logits are a margin apart."""
        import numpy as np  # as above

        logits = reference[0]
        if logits.ndim != 4:
            return 0
        found = 0
        for apart, own, other in in_parts(~self.alike(outputs, reference), masks_in(outputs), logits):
            if not apart.any():
                continue
            best = np.partition(other[apart], (-2, -1), axis=1)
            clear = best[:, -1] - best[:, -2] > margins[0]
            decided = clear & (own[apart] != masks_in((other[apart],)))
            found += int((decided.reshape(len(decided), -1).mean(axis=1) <= 1 - _ALIKE).sum())
        return found

    def decode(self, outputs: Outputs) -> list[MaskAnswer]:
        """The classes of each image and their shares."""
        return answers(outputs, self.decision())

    def told(self, answer: MaskAnswer, classes: Sequence[str]) -> str:
        """Such as "road 61 %, sky 30 %, car 9 %"."""
        from edgeopt_segmentation.places import told  # NumPy

        return told(answer.shares, classes)

    def drawings(self, outputs: Outputs, classes: Sequence[str]) -> list[Drawing]:
        """The masks."""
        answers = zip(self.decode(outputs), masks_in(outputs), strict=True)
        return [Drawing(self.told(answer, classes), mask=mask) for answer, mask in answers]

    # ---- files that end at classes

    @property
    def endings(self) -> tuple[str, ...]:
        return (CLASSES,)

    def ending(self, name: str) -> Ending:
        return ClassesEnding() if name == CLASSES else super().ending(name)

    def likened(self, outputs: Outputs, reference: Outputs) -> Outputs:
        """Classes instead of logits, where the file gives these."""
        if outputs[0].ndim == 3 and reference[0].ndim == 4:
            return (masks_in(reference).astype(outputs[0].dtype),)
        return reference

    # ---- the report

    def sections(self, outputs: Outputs, targets: Masks, classes: Sequence[str]) -> tuple[Section, ...]:
        """IoU of each class, and the images that were answered worst, with the mask that was given."""
        from edgeopt_segmentation.report import section_of  # NumPy and Pillow

        found = self._overlaps(outputs, targets, len(classes))

        return (section_of(masks_in(outputs), targets, found, classes, self.right_from),)

    def _overlaps(self, outputs: Outputs, targets: Masks, classes: int | None = None) -> Overlaps:
        from edgeopt_segmentation.scores import overlaps  # NumPy

        masks = masks_in(outputs)
        if classes is None:
            known = [int(each.max(initial=0)) for each in (masks, targets[targets != IGNORED])]
            classes = outputs[0].shape[1] if outputs[0].ndim == 4 else 1 + max(known)
        return overlaps(masks, targets, classes, IGNORED)


def _same_places(outputs: Outputs, reference: Outputs) -> NDArray[np.float64]:
    """The share of each image's places with the same class, (n,)."""
    same = masks_in(outputs) == masks_in(reference)
    shares: NDArray[np.float64] = same.reshape(len(same), -1).mean(axis=1)
    return shares


def _dice(logits: Tensor, batch: Tensor) -> Tensor:
    """1 minus the mean over the classes that the batch has of 2 · overlap / (own + truth), of softmax probabilities.

    Source: F. Milletari, N. Navab and S.-A. Ahmadi, "V-Net", 3DV 2016, arXiv:1606.04797; sums over the whole batch.
    """
    from torch.nn.functional import one_hot  # as above

    classes = logits.shape[1]
    judged = batch != IGNORED
    truth = one_hot(batch.where(judged, batch.new_zeros(())), classes).movedim(-1, 1) * judged[:, None]
    given = logits.float().softmax(dim=1) * judged[:, None]
    overlap, sums = ((each).sum(dim=(0, 2, 3)) for each in (given * truth, given + truth))
    present = truth.sum(dim=(0, 2, 3)) > 0
    shares = (2 * overlap + 1.0) / (sums + 1.0)
    return 1.0 - (shares * present).sum() / present.sum().clamp(min=1)
