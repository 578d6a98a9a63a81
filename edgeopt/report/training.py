"""How long the float model was trained, and how long the model that ships: whether their accuracies can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeopt.report import figures
from edgeopt.types import Curve, PassRecord

_STILL_RISING = 0.01  # validation score that the last epoch added to the best one before it


@dataclass(frozen=True)
class Training:
    """What the passes say of training: epochs of the float model, and `more_epochs` of the passes after it.

    `still_learning` says how the float model's last training ended where that was too early, else it is empty.
    """

    float_epochs: int = 0
    more_epochs: int = 0
    still_learning: str = ""

    @property
    def note(self) -> str | None:
        """What to know of a difference in accuracy between float and optimized files; None for equal training."""
        if not self.more_epochs or not self.float_epochs:
            return None
        epochs = "1 epoch" if self.more_epochs == 1 else f"{self.more_epochs} epochs"
        return f"not at equal training: the float model had {epochs} fewer"


def training_of(passes: Sequence[PassRecord], float_passes: int) -> Training:
    """The training behind a run's files; the first `float_passes` records are of the float model."""
    before, after = passes[:float_passes], passes[float_passes:]
    trained = [record for record in before if _epochs(record)]
    return Training(
        sum(map(_epochs, before)), sum(map(_epochs, after)), _still_learning(trained[-1]) if trained else ""
    )


def _epochs(record: PassRecord) -> int:
    epochs = record.facts.get("epochs_run")
    return epochs if isinstance(epochs, int) else 0


def _still_learning(record: PassRecord) -> str:
    """How the validation score rose until the last epoch; empty when the training had come to an end before."""
    curve = _score(record)
    if curve is None or len(curve.y) < 2 or record.facts.get("best_epoch") != len(curve.y):
        return ""
    best_before = max(curve.y[:-1])
    if curve.y[-1] - best_before <= _STILL_RISING:
        return ""
    return (
        f"the best epoch of {record.name} is its last, the {_ordinal(len(curve.y))}, which raised {curve.name} "
        f"from {figures.percent(best_before)} to {figures.percent(curve.y[-1])}"
    )


def _score(record: PassRecord) -> Curve | None:
    """The curve of the validation score."""
    named = (curve for curve in record.curves if curve.name == f"validation {curve.y_label}")
    return next((curve for curve in named if curve.y_label != "loss"), None)


def _ordinal(number: int) -> str:
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"
