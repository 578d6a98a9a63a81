"""Outputs whose meaning is not known, as those of somebody's file: numbers that should be others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeopt.tasks.base import Targets, Task
from edgeopt.tasks.parts.ranges import Ranges, answers
from edgeopt.tasks.scores import Score, ScoreKind, Scores
from edgeopt.tasks.statistics import wilson_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from edgeopt.arrays import Outputs

CLOSE = ScoreKind("close")
"""The share of images whose numbers are all close to those that they should be."""
_CLOSE = 0.01  # of the range of an image's output


@dataclass(frozen=True, eq=False)
class WishedNumbers(Targets):
    """What outputs should be: an array for each, with a row an image."""

    outputs: Outputs

    def __len__(self) -> int:
        return len(self.outputs[0])

    def __getitem__(self, indices: slice | NDArray[np.int64]) -> WishedNumbers:
        return WishedNumbers(tuple(each[indices] for each in self.outputs))


@dataclass(frozen=True)
class Numbers(Task):
    """Outputs of any shapes, that are alike where no number is farther from the other than 1 % of its output's range.

    A target is what an image's outputs should be: a tuple of arrays without the axis of images. The training loss is
    the mean squared error, and nothing is known of classes.
    """

    name: str = "numbers"
    score_kinds: tuple[ScoreKind, ...] = (CLOSE,)

    def collected(self, targets: Sequence[Any]) -> WishedNumbers:
        """An array for each output."""
        import numpy as np  # heavy; whoever has images has imported it

        return WishedNumbers(tuple(np.stack(parts) for parts in zip(*targets, strict=True)))

    def stored(self, targets: WishedNumbers) -> Mapping[str, NDArray[Any]]:
        """The arrays by their places."""
        return {f"output_{place}": each for place, each in enumerate(targets.outputs)}

    def restored(self, arrays: Mapping[str, NDArray[Any]]) -> WishedNumbers:
        """The arrays in their order."""
        return WishedNumbers(tuple(arrays[f"output_{place}"] for place in range(len(arrays))))

    def batch(self, targets: WishedNumbers) -> tuple[Tensor, ...]:
        """The arrays as tensors."""
        import torch  # heavy; whoever trains has imported it

        return tuple(map(torch.from_numpy, targets.outputs))

    def loss(self, outputs: tuple[Tensor, ...], batch: tuple[Tensor, ...], label_smoothing: float = 0.0) -> Tensor:  # noqa: ARG002 - of classes
        """Mean squared error, summed over the outputs."""
        return self.soft_loss(outputs, batch, 1.0)

    def scores(self, outputs: Outputs, targets: WishedNumbers) -> Scores:
        """The share of images that are close."""
        right, count = int(self.right(outputs, targets).sum()), len(targets)
        return Scores((Score(right / count, wilson_interval(right, count), count, CLOSE),))

    def right(self, outputs: Outputs, targets: WishedNumbers) -> NDArray[np.bool_]:
        """Images whose numbers are all close."""
        return self.alike(outputs, targets.outputs)

    def alike(self, outputs: Outputs, reference: Outputs) -> NDArray[np.bool_]:
        """Images whose numbers are all close; integers must be the same."""
        import numpy as np  # as above

        alike = np.ones(len(reference[0]), dtype=bool)
        for own, other in zip(outputs, reference, strict=True):
            ones, others = (each.reshape(len(each), -1).astype(np.float64) for each in (own, other))
            share = _CLOSE if other.dtype.kind == "f" else 0.0
            alike &= np.abs(ones - others).max(axis=1, initial=0) <= share * np.ptp(others, axis=1)
        return alike

    def decode(self, outputs: Outputs) -> list[Ranges]:
        """The range of each output."""
        return answers(outputs, {})

    def told(self, answer: Ranges, classes: Sequence[str]) -> str:  # noqa: ARG002 - there are none
        """Such as "-1.2 to 3.4, 0 to 1"."""
        return ", ".join(f"{low:.3g} to {high:.3g}" for low, high in answer.ranges)
