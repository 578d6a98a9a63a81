"""Any number of labels an image."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgeopt.tasks.base import Task, unfit_logits
from edgeopt.tasks.drawings import Drawing, DrawnLabel
from edgeopt.tasks.parts.labels import HALF, Labelled, answers, confidences, threshold_logits
from edgeopt.tasks.scores import Score, ScoreKind, Scores
from edgeopt.tasks.statistics import resampled_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from edgeopt.arrays import Json, Logits, Outputs
    from edgeopt.tasks.guessing import Guess
    from edgeopt.tasks.sections import Section

MAP = ScoreKind("map", "mAP")
"""The mean over the labels of their average precision, whatever the thresholds."""
F1 = ScoreKind("f1", "F1")
"""The mean over the labels of their F1 at the thresholds."""
_HEAVIEST = 100.0  # the largest weight of an image with a rare label
_NO_LABEL = -1


@dataclass(frozen=True)
class MultiLabel(Task):
    """Labels by a sigmoid each: binary cross-entropy, mean average precision, F1.

    A target is a row of 0 and 1, one for each class; targets are bool (n, classes), and the one output is logits, float
    (n, classes). A label is told where its confidence is at least its threshold: one of `thresholds`, which are chosen
    on validation where `is_calibrated`, or 0.5. `label_weights` are those of images that have a label, in the loss.
    """

    name: str = "multi-label"
    score_kinds: tuple[ScoreKind, ...] = (MAP, F1)
    is_calibrated: bool = True
    thresholds: tuple[float, ...] = ()
    label_weights: tuple[float, ...] = ()

    # ---- targets

    def wrong(self, target: Any, classes: int) -> str | None:
        """Another number of labels than there are classes."""
        return None if len(target) == classes else f"{len(target)} labels, and there are {classes} classes"

    def relabelled(self, target: Any, places: Mapping[int, int]) -> tuple[int, ...]:
        """The labels that are kept."""
        kept = {new: target[old] for old, new in places.items()}
        return tuple(int(kept[place]) for place in range(len(kept)))

    def strata(self, images: Any) -> Sequence[Hashable]:
        """The rarest label of each image, so that rare ones come into all splits."""
        rows = [images.target(index) for index in range(len(images))]
        counts = [sum(column) for column in zip(*rows, strict=True)]
        return [
            min((place for place, has in enumerate(row) if has), key=counts.__getitem__, default=_NO_LABEL)
            for row in rows
        ]

    def collected(self, targets: Sequence[Any]) -> NDArray[np.bool_]:
        """Labels, bool (n, classes)."""
        import numpy as np  # heavy; whoever has images has imported it

        return np.asarray(targets, dtype=bool)

    def membership(self, targets: NDArray[np.bool_], classes: int) -> NDArray[np.bool_]:  # noqa: ARG002
        """The labels themselves."""
        return targets

    def restored(self, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """The labels, in memory."""
        import numpy as np  # as above

        return np.asarray(arrays["targets"])

    # ---- training

    @property
    def can_be_mixed(self) -> bool:
        """Labels of blended images are shares."""
        return True

    def mixed(self, batch: Tensor, partner: Tensor, share: Tensor, classes: int) -> Tensor:  # noqa: ARG002
        """Shares of the labels, float32 (n, classes)."""
        own = batch.float()
        return own * share[:, None] + own[partner] * (1.0 - share[:, None])

    def balancing_weights(self, targets: NDArray[np.bool_], classes: int) -> tuple[float, ...]:  # noqa: ARG002
        """How many images lack a label for each that has it, up to 100."""
        counts = targets.sum(axis=0).tolist()
        return tuple(min((len(targets) - count) / max(count, 1), _HEAVIEST) or 1.0 for count in counts)

    def weighted(self, weights: tuple[float, ...], targets: Any) -> MultiLabel:  # noqa: ARG002
        """Images that have a label count so much more for it."""
        return replace(self, label_weights=weights)

    def loss(self, outputs: tuple[Tensor, ...], batch: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Binary cross-entropy, mean over images and labels; logits and labels (n, classes)."""
        from torch.nn.functional import binary_cross_entropy_with_logits  # torch is heavy

        logits = outputs[0]
        wanted = batch.to(logits) * (1.0 - label_smoothing) + label_smoothing / 2
        weights = logits.new_tensor(self.label_weights) if self.label_weights else None
        return binary_cross_entropy_with_logits(logits, wanted, pos_weight=weights)

    def soft_loss(self, outputs: tuple[Tensor, ...], teacher: tuple[Tensor, ...], temperature: float) -> Tensor:
        """Binary cross-entropy against the teacher's softened confidences, less what no student could undercut."""
        from torch.nn.functional import binary_cross_entropy_with_logits  # as above

        own, other = outputs[0].float() / temperature, teacher[0].float() / temperature
        wanted = other.sigmoid()
        least = binary_cross_entropy_with_logits(other, wanted)
        return (binary_cross_entropy_with_logits(own, wanted) - least) * temperature**2

    # ---- answers

    def unfit(self, shapes: Sequence[tuple[int, ...]], images: int, classes: int | None) -> str | None:
        """Anything but logits (n, classes)."""
        return unfit_logits(shapes, images, classes)

    def scores(self, outputs: Outputs, targets: NDArray[np.bool_]) -> Scores:
        """Mean average precision, and mean F1 at the thresholds, over the labels that occur."""
        import numpy as np  # as above

        from edgeopt.tasks.label_scores import average_precision, f1_of, ranked  # nobody else needs it

        values, told, count = outputs[0].astype(np.float64), self.told_labels(outputs[0]), len(targets)
        occurs = np.flatnonzero(targets.any(axis=0))
        labels = [ranked(values[:, place], targets[:, place]) for place in occurs]

        def mean_precision(chosen: NDArray[np.int64]) -> float:
            counts = np.bincount(chosen, minlength=count)
            return _mean([average_precision(label, counts) for label in labels])

        def mean_f1(chosen: NDArray[np.int64]) -> float:
            return _mean(f1_of(told[chosen], targets[chosen])[occurs].tolist())

        every = np.arange(count)
        return Scores(
            tuple(
                _score(kind, figure(every), resampled_interval(count, figure), count)
                for kind, figure in ((MAP, mean_precision), (F1, mean_f1))
            )
        )

    def right(self, outputs: Outputs, targets: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether exactly the image's labels are told."""
        right: NDArray[np.bool_] = (self.told_labels(outputs[0]) == targets).all(axis=1)
        return right

    def grades(self, outputs: Outputs, targets: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The share of the labels that an image has or is told which are both; 1 where it has none and is told none."""
        import numpy as np  # as above

        told = self.told_labels(outputs[0])
        either = (told | targets).sum(axis=1)
        return np.where(either > 0, (told & targets).sum(axis=1) / np.maximum(either, 1), 1.0)

    def alike(self, outputs: Outputs, reference: Outputs) -> NDArray[np.bool_]:
        """Whether both tell the same labels."""
        alike: NDArray[np.bool_] = (self.told_labels(outputs[0]) == self.told_labels(reference[0])).all(axis=1)
        return alike

    def near_ties(self, outputs: Outputs, reference: Outputs, margins: Sequence[float]) -> int:
        """Images whose labels differ only where the reference's logit is within the margin of the threshold."""
        differ = self.told_labels(outputs[0]) != self.told_labels(reference[0])
        close = abs(reference[0] - self.threshold_logits(reference[0].shape[1])) <= margins[0]
        return int((differ.any(axis=1) & ~(differ & ~close).any(axis=1)).sum())

    def decode(self, outputs: Outputs) -> list[Labelled]:
        """The labels of each image, the most confident first."""
        return answers(outputs, self.decision())

    def told(self, answer: Labelled, classes: Sequence[str]) -> str:
        """Such as "cat 98 %, dog 71 %"."""
        pairs = zip(answer.labels, answer.confidences, strict=True)
        return ", ".join(f"{classes[label]} {100 * sure:.0f} %" for label, sure in pairs) or "no label"

    def drawings(self, outputs: Outputs, classes: Sequence[str]) -> list[Drawing]:
        """Every label with its confidence and its threshold."""
        thresholds = self.thresholds or (HALF,) * outputs[0].shape[1]
        return [
            Drawing(
                self.told(answer, classes),
                labels=tuple(
                    DrawnLabel(place, float(sure), least)
                    for place, (sure, least) in enumerate(zip(row, thresholds, strict=True))
                ),
            )
            for answer, row in zip(self.decode(outputs), confidences(outputs[0]), strict=True)
        ]

    def guess(self, outputs: Outputs, targets: NDArray[np.bool_], classes: Sequence[str]) -> Guess | None:
        """The same labels for all images, which have different ones."""
        from edgeopt.tasks.guessing import Guess, GuessKind  # as above

        told = self.told_labels(outputs[0])
        if (told != told[0]).any() or not (targets != targets[0]).any():
            return None
        name = " and ".join(each for each, has in zip(classes, told[0], strict=True) if has) or "no label"
        return Guess(GuessKind.ONE_CLASS, int(self.right(outputs, targets).sum()), len(targets), len(classes), name)

    def told_labels(self, logits: Logits) -> NDArray[np.bool_]:
        """Which labels are told, bool (n, classes)."""
        told: NDArray[np.bool_] = logits >= self.threshold_logits(logits.shape[1])
        return told

    def threshold_logits(self, classes: int) -> NDArray[np.float64]:
        """The thresholds as logits, float64 (classes,)."""
        return threshold_logits(self.thresholds, classes)

    # ---- what is chosen on validation

    @property
    def is_fitted(self) -> bool:
        """The thresholds are."""
        return self.is_calibrated

    def fitted(self, outputs: Outputs, targets: NDArray[np.bool_]) -> MultiLabel:
        """With the thresholds of the best F1 for these; 0.5 for a label that none or all of them have."""
        import numpy as np  # as above

        from edgeopt.tasks.label_scores import best_threshold, ranked  # as above

        logits = outputs[0].astype(np.float64)
        chosen = [best_threshold(ranked(logits[:, place], targets[:, place]), 0.0) for place in range(targets.shape[1])]
        smallest = 1e-6  # a threshold is a confidence that can be reached, and missed
        return replace(
            self, thresholds=tuple(min(max(1 / (1 + math.exp(-each)), smallest), 1 - smallest) for each in chosen)
        )

    def decision(self) -> dict[str, Json]:
        """The confidences from which on labels are told."""
        return {"thresholds": list(self.thresholds)} if self.thresholds else {"threshold": HALF}

    def decided(self, decision: Mapping[str, Json]) -> MultiLabel:
        """With the thresholds of a card; 0.5 for all where it has none."""
        return replace(self, thresholds=tuple(float(each) for each in decision.get("thresholds", ())))

    # ---- the report

    def sections(self, outputs: Outputs, targets: NDArray[np.bool_], classes: Sequence[str]) -> tuple[Section, ...]:
        """Each label's images, average precision, precision, recall, F1 and threshold."""
        import numpy as np  # as above

        from edgeopt.tasks.label_scores import average_precision, f1_of, ranked  # as above
        from edgeopt.tasks.sections import Section, SectionTable

        values, told = outputs[0].astype(np.float64), self.told_labels(outputs[0])
        f1, thresholds = f1_of(told, targets), self.thresholds or (HALF,) * len(classes)
        rows = []
        for place, name in enumerate(classes):
            both = int((told[:, place] & targets[:, place]).sum())
            figures = (
                average_precision(ranked(values[:, place], targets[:, place])),
                both / told[:, place].sum() if told[:, place].any() else math.nan,
                both / targets[:, place].sum() if targets[:, place].any() else math.nan,
                float(f1[place]),
            )
            texts = ("–" if math.isnan(each) else f"{100 * each:.1f} %" for each in figures)
            rows.append((name, int(targets[:, place].sum()), *texts, f"{thresholds[place]:.2f}"))
        columns = ("label", "images", "average precision", "precision", "recall", "F1", "threshold")
        return (Section("Labels", (), (SectionTable(columns, tuple(rows)),)),)


def _mean(values: Sequence[float]) -> float:
    """The mean of those that are numbers; NaN where none is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _score(kind: ScoreKind, value: float, interval: tuple[float, float], count: int) -> Score:
    return Score(value, (min(interval[0], value), max(interval[1], value)), count, kind)
