"""One label an image."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgeopt.tasks.base import Task, unfit_logits
from edgeopt.tasks.parts.classes import Prediction, answers, softmax
from edgeopt.tasks.scores import ACCURACY, Score, ScoreKind, Scores
from edgeopt.tasks.statistics import resampled_interval, wilson_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from edgeopt.arrays import Json, Labels, Logits, Outputs
    from edgeopt.tasks.guessing import Guess
    from edgeopt.tasks.sections import Section


BALANCED_ACCURACY = ScoreKind("balanced_accuracy")
"""The mean over the classes of the share of their images that were answered rightly."""
TOP5 = ScoreKind("top5", "top-5 accuracy")
"""The share of images whose class is among the five likeliest."""
CALIBRATION_ERROR = ScoreKind("calibration_error", larger_is_better=False)
"""How far confidences are from the share that is right; see `edgeopt.tasks.calibration`."""
FURTHER = {kind.name: kind for kind in (BALANCED_ACCURACY, TOP5, CALIBRATION_ERROR)}


@dataclass(frozen=True)
class Classification(Task):
    """One label an image: cross-entropy, top-1 accuracy with a Wilson interval, softmax confidence.

    Targets are labels, int64 (n,), and the one output is logits, float (n, classes). `class_weights`, one for each
    class or none, are those of the training loss. Confidences are the softmax of logits divided by `temperature`, which
    is fitted on validation where `is_calibrated` asks for it.
    """

    name: str = "classification"
    score_kinds: tuple[ScoreKind, ...] = (ACCURACY,)
    class_weights: tuple[float, ...] = ()
    is_calibrated: bool = False
    temperature: float = 1.0

    @property
    def can_be_mixed(self) -> bool:
        """Labels of blended images are shares of classes."""
        return True

    @property
    def is_of_classes(self) -> bool:
        """Each image is of one class."""
        return True

    # ---- targets

    def target(self, images: Any, index: int) -> int:
        """The label of an image: its class's place."""
        return int(images.labels[index])

    def wrong(self, target: Any, classes: int) -> str | None:
        """A label that is no class."""
        return None if 0 <= target < classes else f"label {target} is none of the {classes} classes"

    def relabelled(self, target: Any, places: Mapping[int, int]) -> int:
        """The class's place among those that are kept."""
        return places[target]

    def strata(self, images: Any) -> Sequence[Hashable]:
        """The labels."""
        labels: list[int] = images.labels.tolist()
        return labels

    def collected(self, targets: Sequence[Any]) -> Labels:
        """Labels, int64 (n,)."""
        import numpy as np  # heavy; whoever has images has imported it

        return np.asarray(targets, dtype=np.int64)

    def membership(self, targets: Labels, classes: int) -> NDArray[np.bool_]:
        """One class an image."""
        import numpy as np  # as above

        found: NDArray[np.bool_] = np.asarray(targets)[:, None] == np.arange(classes)
        return found

    def stored(self, targets: Labels) -> Mapping[str, NDArray[Any]]:
        """The labels as they are."""
        return {"labels": targets}

    def restored(self, arrays: Mapping[str, NDArray[Any]]) -> Labels:
        """The labels, in memory."""
        import numpy as np  # as above

        return np.asarray(arrays["labels"])

    # ---- training

    def mixed(self, batch: Tensor, partner: Tensor, share: Tensor, classes: int) -> Tensor:
        """Shares of the classes, float32 (n, classes)."""
        from torch.nn.functional import one_hot  # torch is heavy; whoever has a tensor has imported it

        own = one_hot(batch, classes).float()
        return own * share[:, None] + own[partner] * (1.0 - share[:, None])

    def balancing_weights(self, targets: Labels, classes: int) -> tuple[float, ...]:
        """Inverse to how many images a class has; 1 on average over the images."""
        counts = [max(int((targets == label).sum()), 1) for label in range(classes)]
        return tuple(len(targets) / (classes * count) for count in counts)

    def weighted(self, weights: tuple[float, ...], targets: Labels) -> Classification:
        """Images count as their class weighs, 1 on average over `targets`."""
        mean = sum(weights[label] for label in targets.tolist()) / len(targets)
        return replace(self, class_weights=tuple(weight / mean for weight in weights))

    def loss(self, outputs: tuple[Tensor, ...], batch: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy, mean over the batch; logits float (n, classes), labels int64 (n,), or shares of the classes,
        float (n, classes).
        """
        from torch.nn.functional import cross_entropy  # as above

        if not self.class_weights:
            return cross_entropy(outputs[0], batch, label_smoothing=label_smoothing)
        weights = outputs[0].new_tensor(self.class_weights)
        total = cross_entropy(outputs[0], batch, weight=weights, label_smoothing=label_smoothing, reduction="sum")
        return total / len(batch)  # not by the weights in the batch: these vary where a class is rare

    def soft_loss(self, outputs: tuple[Tensor, ...], teacher: tuple[Tensor, ...], temperature: float) -> Tensor:
        """Kullback-Leibler divergence between student's and teacher's softened answers, times the temperature squared.

        Takes float logits (n, classes) and gives a scalar, the mean over the batch, float32. The factor keeps the
        gradients' size whatever the temperature is.

        Source: G. Hinton, O. Vinyals and J. Dean, "Distilling the knowledge in a neural network", 2015.
        """
        from torch.nn.functional import kl_div, log_softmax  # as above

        own = log_softmax(outputs[0].float() / temperature, dim=1)
        other = log_softmax(teacher[0].float() / temperature, dim=1)
        return kl_div(own, other, reduction="batchmean", log_target=True) * temperature**2

    # ---- answers

    def unfit(self, shapes: Sequence[tuple[int, ...]], images: int, classes: int | None) -> str | None:
        """Anything but logits (n, classes)."""
        return unfit_logits(shapes, images, classes)

    def scores(self, outputs: Outputs, targets: Labels) -> Scores:
        """Of float logits (n, classes) against int64 labels (n,): top-1 accuracy, and what was asked for besides."""
        return Scores(tuple(self._score(kind, outputs[0], targets) for kind in self.score_kinds))

    def _score(self, kind: ScoreKind, logits: Logits, labels: Labels) -> Score:
        count = len(labels)
        if kind in (ACCURACY, TOP5):
            if kind == ACCURACY:
                right = self.right((logits,), labels)
            else:  # fewer than five classes are above the image's own
                right = (logits > logits[range(count), labels][:, None]).sum(axis=1) < 5
            correct = int(right.sum())
            return Score(correct / count, wilson_interval(correct, count), count, kind)
        right = self.right((logits,), labels)
        if kind == BALANCED_ACCURACY:

            def figure(chosen: NDArray[np.int64]) -> float:
                return mean_recall(right[chosen], labels[chosen])

        else:
            from edgeopt.tasks.calibration import calibration_error  # nobody else needs it

            confidence = self.confidences(logits).max(axis=1)

            def figure(chosen: NDArray[np.int64]) -> float:
                return calibration_error(confidence[chosen], right[chosen])

        import numpy as np  # as above

        value = figure(np.arange(count))
        low, high = resampled_interval(count, figure)
        return Score(value, (min(low, value), max(high, value)), count, kind)

    def right(self, outputs: Outputs, targets: Labels) -> NDArray[np.bool_]:
        """Whether the top-1 label is the image's."""
        right: NDArray[np.bool_] = outputs[0].argmax(axis=1) == targets
        return right

    def alike(self, outputs: Outputs, reference: Outputs) -> NDArray[np.bool_]:
        """Whether both have the same top-1 label."""
        alike: NDArray[np.bool_] = outputs[0].argmax(axis=1) == reference[0].argmax(axis=1)
        return alike

    def near_ties(self, outputs: Outputs, reference: Outputs, margins: Sequence[float]) -> int:
        """Images with another top-1 label whose reference logits of the two differ by no more than the margin."""
        logits = reference[0]
        own, other = logits.argmax(axis=1), outputs[0].argmax(axis=1)
        images = (own != other).nonzero()[0]
        return int((logits[images, own[images]] - logits[images, other[images]] <= margins[0]).sum())

    def decode(self, outputs: Outputs) -> list[Prediction]:
        """Label and softmax confidence of each image."""
        return answers(outputs, {"temperature": self.temperature})

    def confidences(self, logits: Logits) -> NDArray[np.float64]:
        """Softmax of the logits divided by the temperature, float64 (n, classes)."""
        return softmax(logits, self.temperature)

    # ---- what is chosen on validation

    @property
    def is_fitted(self) -> bool:
        """The temperature is, where that is asked for."""
        return self.is_calibrated

    def fitted(self, outputs: Outputs, targets: Labels) -> Classification:
        """With the temperature that is likeliest for these, where that is asked for."""
        if not self.is_calibrated:
            return self
        from edgeopt.tasks.calibration import fitted_temperature  # as above

        return replace(self, temperature=fitted_temperature(outputs[0], targets))

    def decision(self) -> dict[str, Json]:
        """The temperature."""
        return {"temperature": self.temperature} if self.is_calibrated else {}

    def decided(self, decision: Mapping[str, Json]) -> Classification:
        """With the temperature of a card, where it has one."""
        if "temperature" not in decision:
            return self
        return replace(self, is_calibrated=True, temperature=float(decision["temperature"]))

    def as_classes(self, outputs: Outputs, targets: Labels) -> tuple[Labels, Labels]:
        """The labels, and the top-1 labels of the answers."""
        return targets, outputs[0].argmax(axis=1)

    def told(self, answer: Prediction, classes: Sequence[str]) -> str:
        """Such as "cat, 98 %"."""
        return f"{classes[answer.label]}, {answer.confidence:.0%}".replace("%", " %")

    def guess(self, outputs: Outputs, targets: Labels, classes: Sequence[str]) -> Guess | None:
        """One class for all, or no more right answers than chance or the most frequent class gives."""
        from edgeopt.tasks.guessing import guess_in  # as above

        return guess_in(outputs[0], targets, classes)

    def sections(self, outputs: Outputs, targets: Labels, classes: Sequence[str]) -> tuple[Section, ...]:  # noqa: ARG002
        """Accuracy by confidence, where the error of calibration or a temperature was asked for."""
        if not self.is_calibrated and CALIBRATION_ERROR not in self.score_kinds:
            return ()
        from edgeopt.tasks.calibration import calibration_section  # as above

        confidence = self.confidences(outputs[0]).max(axis=1)
        return (calibration_section(confidence, self.right(outputs, targets), self.temperature),)


def mean_recall(right: NDArray[np.bool_], labels: Labels) -> float:
    """The mean over the classes of the share of their images that are right, bool and int64 (n,)."""
    import numpy as np  # heavy; whoever has labels has imported it

    asked, told = np.bincount(labels), np.bincount(labels, right)
    return float((told[asked > 0] / asked[asked > 0]).mean())
