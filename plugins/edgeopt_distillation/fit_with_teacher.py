"""Training with a teacher, and the same training without one beside it: for `distill`, and for every pass that trains.

```
teacher = teacher_of(options, state.task, context)
result = fit_taught(module, teacher, state.task, options, context, hooks, "recovery")
```
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgeopt.networks.copies import copy_module
from edgeopt.plugins import Curve, Json, Paired, PassContext, Score, Task
from edgeopt_distillation.options import TaughtOptions
from edgeopt_distillation.teacher_input import normalization_of
from edgeopt_distillation.teacher_loss import Teacher, Teaching, load_teacher
from edgeopt_lightning.fit.balance import weighted_task
from edgeopt_lightning.fit.hooks import FitHooks, FitResult
from edgeopt_lightning.fit.loop import fit
from edgeopt_lightning.fit.validation import in_numpy, training_device, validation_outputs

if TYPE_CHECKING:
    from edgeopt.plugins import Outputs

_CONTROL = "control"


def teacher_of(options: TaughtOptions, task: Task, context: PassContext) -> Teacher | None:
    """The teacher that the options name, None where they name none; raises what `load_teacher` does."""
    if options.teacher is None or options.teacher == "none":
        return None
    return load_teacher(options.teacher, task, context, normalization_of(options.teacher_mean, options.teacher_std))


def fit_taught(
    module: nn.Module,
    teacher: Teacher | None,
    task: Task,
    options: TaughtOptions,
    context: PassContext,
    hooks: FitHooks | None = None,
    label: str = "train",
    *,
    control: nn.Module | None = None,
    extra: Callable[[], Tensor] | None = None,
) -> FitResult:
    """`fit`, with a teacher where there is one, and then the control: the same training without the teacher.

    The control is trained where `options.control` asks for it: `control` in place, or a copy of `module` as it was. Its
    figures join those of the result. Both trainings use `hooks`, so these must depend on nothing but the module they
    are given. `extra` is added to the loss of the training with the teacher.
    """
    hooks = hooks or FitHooks()
    if teacher is None:
        return fit(module, context.data, task, options, context, hooks, label)
    if options.control and control is None:
        control = copy_module(module)
    epochs = context.budget.of(context.budget.epochs, options.epochs)
    learnt = weighted_task(task, options, context.data)
    teaching = Teaching(teacher, learnt, options, epochs, options.label_smoothing, extra)
    result = fit(module, context.data, task, options, context, teaching.added_to(hooks), label)
    result = replace(
        result,
        facts={**result.facts, **teacher.facts(task.metric)},
        warnings=(*teacher.warnings, *result.warnings),
    )
    if not options.control or control is None:
        return result
    alone = replace(context, pause_epochs=None)  # what is compared with other trials is the training itself
    without = fit(control, context.data, task, options, alone, hooks, f"{label}, {_CONTROL}")
    (before, targets), (after, _) = (
        answers(each, task, context, hooks, options.batch_size) for each in (control, module)
    )
    comparison = TeacherComparison(result, without, task.score(before, targets), task.compare(before, after, targets))
    return replace(
        result,
        facts={**result.facts, **comparison.facts()},
        curves=(*result.curves, *comparison.curves()),
        warnings=(*result.warnings, *comparison.warnings(teacher)),
    )


@torch.no_grad()
def answers(
    module: nn.Module, task: Task, context: PassContext, hooks: FitHooks, batch_size: int
) -> tuple[Outputs, Any]:
    """What a trained module answers on the validation split, and the targets there.

    They are those of the model by which the training chose its epoch: for `qat` the converted one.
    """
    hooks.set_training(module, False)
    device = training_device(context)
    function = (hooks.scored or (lambda each: each))(module.to(device))
    outputs, targets = validation_outputs(function, task, context, batch_size, device)
    module.to("cpu")
    return in_numpy(outputs), targets


@dataclass(frozen=True)
class TeacherComparison:
    """A training with a teacher and the same one without, on the same validation images; `score` is the latter's.

    `paired` counts the images that the control alone and that the taught model alone answers rightly.
    """

    taught: FitResult
    control: FitResult
    score: Score
    paired: Paired

    @property
    def gain(self) -> float:
        """What the teacher brought, in the task's metric: above 0 is better."""
        change = self.taught.best_score - self.control.best_score
        return change if self.score.kind.larger_is_better else -change

    def facts(self) -> dict[str, Json]:
        """The control's row, and the difference."""
        metric = self.score.kind.name
        return {
            f"{_CONTROL}_{metric}": self.control.best_score,
            f"{_CONTROL}_{metric}_interval": list(self.score.interval),
            f"{_CONTROL}_loss": self.control.best_loss,
            f"{_CONTROL}_best_epoch": self.control.best_epoch,
            f"{_CONTROL}_epochs_run": self.control.epochs_run,
            "teacher_gain": self.gain,
            "images_lost_by_teacher": self.paired.lost,
            "images_gained_by_teacher": self.paired.gained,
            "teacher_gain_p_value": self.paired.p_value,
            "teacher_gain_may_be_chance": self.paired.may_be_chance,
        }

    def curves(self) -> tuple[Curve, ...]:
        """The control's curves but for its learning rate, which is the taught one's."""
        curves = (each for each in self.control.curves if each.name != "learning rate")
        return tuple(replace(each, name=f"{each.name}, {_CONTROL}") for each in curves)

    def warnings(self, teacher: Teacher) -> tuple[str, ...]:
        """What to say when the teacher brought nothing."""
        if self.gain > 0:
            return ()
        kind = self.score.kind
        chance = "which may be chance" if self.paired.may_be_chance else "which is not chance"
        message = (
            f"the teacher did not help: {kind.called} on validation is {kind.text(self.taught.best_score)} with it and "
            f"{kind.text(self.control.best_score)} without ({self.paired.lost} images lost, {self.paired.gained} "
            f"gained by the teacher, {chance}); the teacher itself has {kind.text(teacher.score.value)}{teacher.doubt}"
        )
        return (message,)
