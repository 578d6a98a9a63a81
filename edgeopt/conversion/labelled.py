"""What labelled images say of a conversion: how often each side is right, and whether that is more than guessing.

Labels are positions in a data set's classes; outputs of a model are positions of its own. `labelling` holds one against
the other, by name where the model has names, by order where it has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.report import figures
from edgeopt.tasks.base import Task
from edgeopt.tasks.scores import Score
from edgeopt.tasks.statistics import Paired

if TYPE_CHECKING:
    from edgeopt.arrays import Labels, Logits

_LISTED = 8  # classes in a sentence; of more, the first


@dataclass(frozen=True)
class Labelling:
    """Which output of a model stands for each class of a data set, in the order of the classes.

    `names` are the model's outputs by name, those of the data set where the model has none. `why_not` says, where
    nothing tells which output is which, why.
    """

    outputs: tuple[int, ...]
    names: tuple[str, ...]
    why_not: str = ""

    def labels(self, labels: Labels) -> Labels:
        """Labels of the data set, int64 (n,), as outputs of the model."""
        import numpy as np  # heavy: the parent process reads this module

        return np.asarray(self.outputs, dtype=np.int64)[labels]


def labelling(outputs: tuple[str, ...], classes: tuple[str, ...]) -> Labelling:
    """Holds the names of a model's outputs, "0", "1", … where it has none, against the classes of a data set."""
    if not outputs:
        return Labelling((), (), "the model's outputs are no classes")
    if is_unnamed(outputs):
        if len(outputs) == len(classes):
            return Labelling(tuple(range(len(classes))), classes)
        why = f"the model has {len(outputs)} outputs without names, and the data set {len(classes)} classes"
        return Labelling((), outputs, why)
    if missing := [name for name in classes if name not in outputs]:
        why = f"the model's outputs are called {listed(outputs)}, and the data set has {listed(missing)}"
        return Labelling((), outputs, why)
    return Labelling(tuple(map(outputs.index, classes)), outputs)


def is_unnamed(outputs: tuple[str, ...]) -> bool:
    """Whether the names of outputs are but their numbers."""
    return outputs == tuple(map(str, range(len(outputs))))


def listed(names: tuple[str, ...] | list[str]) -> str:
    """Names in a sentence, the first of many."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(map(repr, names[:_LISTED])) + more


@dataclass(frozen=True)
class Answered:
    """How one side answered labelled images.

    `doubt` says, where its right answers are no more than a guess would give, in what way; empty otherwise.
    """

    score: Score
    doubt: str = ""


def answered(task: Task, logits: Logits, labels: Labels, names: tuple[str, ...]) -> Answered:
    """Judges logits, float32 (n, outputs), against labels, int64 (n,), which are positions of outputs."""
    score = task.score((logits,), labels)
    guess = task.guess((logits,), labels, names)
    return Answered(score, guess.told() if guess else "")


def guessing(labels: Labels) -> float:
    """The share of right answers, 0 to 1, that guessing among the classes of these labels gives."""
    import numpy as np  # as above

    return 1 / max(1, len(np.unique(labels)))


@dataclass(frozen=True)
class LabelledAnswers:
    """The answers of a source and of its file to the same labelled images, and the images that one of them lost."""

    source: Answered
    file: Answered
    paired: Paired

    @property
    def is_spoiled(self) -> bool:
        """Whether the file tells nothing apart and its source does."""
        return bool(self.file.doubt) and not self.source.doubt and self._is_loss

    @property
    def verdicts(self) -> tuple[str, ...]:
        """What a reader should know first; a source that guesses is told where it is read."""
        if self.source.doubt or not self._is_loss:
            return ()
        before, after = figures.percent(self.source.score.value), figures.percent(self.file.score.value)
        said = f"the file is right for {after} of the images, its source for {before}: {figures.counted(self.paired)}"
        return (f"{said}; this is a loss, not chance",)

    @property
    def _is_loss(self) -> bool:
        return self.paired.change < 0 and not self.paired.may_be_chance
