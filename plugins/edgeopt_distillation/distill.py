"""The pass `distill`: the student's training with a teacher, and the same training without."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from edgeopt.errors import NothingChangedError
from edgeopt.plugin import PassContext
from edgeopt.task import wilson_interval
from edgeopt.types import Curve, Json, ModelState, PassRecord
from edgeopt_distillation.features import Matching
from edgeopt_distillation.options import DistillOptions
from edgeopt_distillation.teaching import Teacher, Teaching, load_teacher
from edgeopt_lightning.fit import FitHooks, FitResult, fit

_CONTROL = "control"
_EXAMPLES = 2  # pictures from which the shapes inside of both models are read


def distill_model(state: ModelState, options: DistillOptions, context: PassContext) -> ModelState:
    """A state with a copy of the module that was trained with the labels and a teacher.

    With `control` the same student, from the same start and with the same options, is trained without the teacher as well.
    Both are in the record; the taught one goes on.

    Raises what `load_teacher`, `Matching` and `fit` raise, and `NothingChangedError` for a model without weights.
    """
    if not any(each.requires_grad for each in state.module.parameters()):
        raise NothingChangedError("the model has no weights to train", hint="leave out this pass")
    teacher = load_teacher(options.teacher, state.task, context)
    student = copy.deepcopy(state.module).eval()
    epochs = context.budget.of(context.budget.epochs, options.epochs)
    teaching = Teaching(teacher, state.task, options, epochs, options.label_smoothing)
    with _matched(student, teaching, options, context) as (module, taught_with):
        hooks = taught_with.added_to(FitHooks())
        result = fit(module, context.data, state.task, options, context, hooks, label="distill")
    facts: dict[str, Json] = {
        **result.facts,
        "teacher": teacher.name,
        f"teacher_{state.task.metric}": teacher.score.value,
        f"teacher_{state.task.metric}_interval": list(teacher.score.interval),
        "teacher_parameters": sum(each.numel() for each in teacher.module.parameters()),
        "student_parameters": sum(each.numel() for each in student.parameters()),
    }
    curves, warnings = result.curves, [*teacher.warnings, *result.warnings]
    if options.control:
        control = fit(
            copy.deepcopy(state.module), context.data, state.task, options, context, FitHooks(), label=_CONTROL
        )
        comparison = Comparison(result, control, state.task.metric)
        facts |= comparison.facts()
        curves += comparison.curves()
        warnings += comparison.warnings(teacher)
    return state.after(PassRecord("distill", facts, curves, tuple(warnings)), student)


@contextmanager
def _matched(
    student: nn.Module, teaching: Teaching, options: DistillOptions, context: PassContext
) -> Iterator[tuple[nn.Module, Teaching]]:
    """Within, what to fit in place of the student and with which loss: with adapters where layers are compared."""
    if not options.features and not options.attention:
        yield student, teaching
        return
    data = context.data
    example = torch.from_numpy(data.preprocessing.normalize(data.train.pixels(range(min(_EXAMPLES, len(data.train))))))
    matching = Matching(student, teaching.teacher.module, options, example, context.seed)
    try:
        yield matching.module, replace(teaching, extra=matching.loss)
    finally:
        matching.remove()


@dataclass(frozen=True)
class Comparison:
    """A training with a teacher and the same one without, on the same validation pictures."""

    taught: FitResult
    control: FitResult
    metric: str

    @property
    def gain(self) -> float:
        """What the teacher brought, in the task's metric."""
        return self.taught.best_score - self.control.best_score

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the control's score."""
        return wilson_interval(round(self.control.best_score * self.control.pictures), self.control.pictures)

    @property
    def is_within_interval(self) -> bool:
        """Whether the taught score lies in the control's interval: then chance may have made the difference."""
        low, high = self.interval
        return low <= self.taught.best_score <= high

    def facts(self) -> dict[str, Json]:
        """The control's row, and the difference."""
        return {
            f"{_CONTROL}_{self.metric}": self.control.best_score,
            f"{_CONTROL}_{self.metric}_interval": list(self.interval),
            f"{_CONTROL}_loss": self.control.best_loss,
            f"{_CONTROL}_best_epoch": self.control.best_epoch,
            f"{_CONTROL}_epochs_run": self.control.epochs_run,
            "teacher_gain": self.gain,
            "teacher_gain_within_interval": self.is_within_interval,
        }

    def curves(self) -> tuple[Curve, ...]:
        """The control's curves but for its learning rate, which is the taught one's."""
        curves = (each for each in self.control.curves if each.name != "learning rate")
        return tuple(replace(each, name=f"{each.name}, {_CONTROL}") for each in curves)

    def warnings(self, teacher: Teacher) -> tuple[str, ...]:
        """What to say when the teacher brought nothing."""
        if self.gain > 0:
            return ()
        within = "within" if self.is_within_interval else "beyond"
        message = (
            f"the teacher did not help: {self.metric} on validation is {self.taught.best_score:.1%} with it and "
            f"{self.control.best_score:.1%} without, a difference {within} the 95 % interval; the teacher itself has "
            f"{teacher.score.value:.1%}"
        )
        return (message,)
