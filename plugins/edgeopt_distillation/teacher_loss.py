"""A teacher, and the loss with which a student learns from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgeopt.networks.copies import copy_module
from edgeopt.networks.logits import answer_of
from edgeopt.networks.outputs import outputs_in, problem_of_outputs
from edgeopt.plugins import (
    ONLY_LOGITS,
    TORCH,
    Json,
    ModelPlugin,
    ModelState,
    PassContext,
    Problem,
    RecipeError,
    Score,
    Task,
    TrainingError,
    Use,
)
from edgeopt_distillation.earlier_run import trained_preprocessing
from edgeopt_distillation.options import EarlierRunOptions, TeacherOptions
from edgeopt_distillation.teacher_input import Normalization, convert_inputs
from edgeopt_lightning.fit.hooks import FitHooks
from edgeopt_lightning.fit.validation import outputs_of, validated

_DOUBT = "; if weights were trained with another mean and std, set teacher_mean and teacher_std"

# ---- the teacher ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Teacher:
    """A trained module in evaluation mode, whose weights need no gradients, and its score on the validation split.

    `doubt` is what to look at where the score is bad. `converted_from` names the normalization that the teacher was
    trained with where its inputs are converted to it, and is empty where they are those of the student.
    """

    module: nn.Module
    name: str
    score: Score
    warnings: tuple[str, ...] = ()
    doubt: str = ""
    converted_from: str = ""

    def facts(self, metric: str) -> dict[str, Json]:
        """What the report says of it; `metric` names the score."""
        return {
            "teacher": self.name.strip("'"),
            f"teacher_{metric}": self.score.value,
            f"teacher_{metric}_interval": list(self.score.interval),
            **({"teacher_input": self.converted_from} if self.converted_from else {}),
        }


def load_teacher(
    teacher: Use[ModelPlugin] | Literal["float"],
    task: Task,
    context: PassContext,
    normalization: Normalization | None = None,
) -> Teacher:
    """Builds the model that a recipe names as a teacher and scores it on the validation split.

    Its inputs are converted where it was trained with another normalization: that of `normalization` where one is
    given, else that of the earlier run for `earlier-run`.

    In a smoke run a teacher that knows nothing is a warning: there, no model was trained for more than a few batches.

    Raises `TrainingError` when it is of another framework, has other classes or is no better than guessing, when there
    is no float model yet that "float" could mean, and what its plugin raises.
    """
    name, built = _built(teacher, context)
    module = built.module.eval().requires_grad_(False)
    known = normalization or _known_normalization(teacher)
    converted = convert_inputs(module, known, context.data.preprocessing) if known else ""
    _require_comparable(name, built, task, context)
    answers = validated(module, task, context)
    warnings = tuple(f"teacher: {warning}" for record in built.history for warning in record.warnings)
    if converted:
        warnings = ()  # a model's own warning says that its normalization is another: it is no longer
    doubt = "" if known or not isinstance(teacher, Use) else _DOUBT
    if answers.guess:
        problem = f"teacher {name} {answers.guess.told('validation images')}"
        if context.budget.batches is None:
            hint = "give it weights that were trained on these classes, or train it in a recipe and name that run"
            hint += doubt
            raise TrainingError(Problem(problem, hint, option="teacher"))
        warnings = (*warnings, problem)
    return Teacher(module, name, answers.score, warnings, doubt, converted)


def _known_normalization(teacher: Use[ModelPlugin] | Literal["float"]) -> Normalization | None:
    """The mean and std with which an earlier run trained; None for any other teacher, which does not say."""
    if not isinstance(teacher, Use) or not isinstance(teacher.options, EarlierRunOptions):
        return None
    preprocessing = trained_preprocessing(teacher.options)
    return Normalization(preprocessing.mean, preprocessing.std)


def _built(teacher: Use[ModelPlugin] | Literal["float"], context: PassContext) -> tuple[str, ModelState]:
    """The teacher's name and a state of its own."""
    if not isinstance(teacher, Use):
        if context.baseline is None:
            problem = (
                'teacher "float" is the model before the first pass that compresses it, and none comes before this pass'
            )
            raise TrainingError(Problem(problem, "name a model, or put this pass after it", option="teacher"))
        state = context.baseline()
        return "this run's float model", replace(state, model=copy_module(state.module))
    if teacher.plugin.framework != TORCH:
        raise TrainingError(
            Problem(
                f"teacher {teacher.plugin.name!r} is a model of {teacher.plugin.framework}, "
                f"and the student one of {TORCH}",
                "name a model of PyTorch",
                option="teacher",
            )
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        return repr(teacher.plugin.name), teacher.plugin.build(teacher.options, context.data)


def _require_comparable(name: str, teacher: ModelState, task: Task, context: PassContext) -> None:
    """Raises `TrainingError` for a teacher whose answers say something else than the student's: of other classes, or in
    a form that `task`, the student's, does not compare; `RecipeError` for one that answers what the task cannot take.
    """
    data, module = context.data, teacher.module
    hint = "train it on these classes in a recipe, and name that run as earlier-run"
    images = torch.from_numpy(data.preprocessing.normalize(data.validation.pixels(range(2))))
    answer = answer_of(module, images)
    is_of_logits = teacher.output_names == ONLY_LOGITS
    if is_of_logits and (problem := problem_of_outputs(type(module).__name__, answer, len(images), ONLY_LOGITS)):
        raise RecipeError(problem)
    told = outputs_in(answer, ONLY_LOGITS)[0].shape[-1] if is_of_logits else len(teacher.classes)
    if teacher.classes != data.classes or told != len(data.classes):
        message = f"teacher {name} tells {told} classes, and the data set has {len(data.classes)}"
        if told == len(data.classes):
            message = f"teacher {name} knows other classes than the data set: {', '.join(teacher.classes)}"
        raise TrainingError(Problem(message, hint, option="teacher"))
    if teacher.task.name != task.name:
        message = f"teacher {name} is for {teacher.task.name}, and the student for {task.name}"
        raise TrainingError(Problem(message, f"name a model for {task.name}", option="teacher"))
    if reason := task.incomparable(teacher.task):
        message = f"the answers of teacher {name} cannot be compared with the student's: {reason}"
        raise TrainingError(Problem(message, "name a teacher that answers in the same form", option="teacher"))
    if problem := problem_of_outputs(type(module).__name__, answer, len(images), teacher.output_names, task):
        raise RecipeError(problem)


# ---- the loss ------------------------------------------------------------------------------------------------------


def alpha_at(options: TeacherOptions, epoch: int, epochs: int) -> float:
    """The teacher's share of the loss in `epoch`, counted from 0, of `epochs`."""
    end = options.alpha_end or 0.0
    done = epoch / (epochs - 1) if epochs > 1 else 0.0
    match options.alpha_schedule:
        case "linear":
            return options.alpha + (end - options.alpha) * done
        case "cosine":
            return end + (options.alpha - end) * (1 + math.cos(math.pi * done)) / 2
        case _:
            return options.alpha


@dataclass(frozen=True)
class Teaching:
    """The loss of a student with a teacher, in a training of `epochs`.

    `label_smoothing` is that of the labels' part. `extra`, where it is given, is added as it is: the loss of features,
    which both models computed for the same batch just before.
    """

    teacher: Teacher
    task: Task
    options: TeacherOptions
    epochs: int
    label_smoothing: float = 0.0
    extra: Callable[[], Tensor] | None = None
    # a tensor, because a compiled step would be compiled anew for each new number
    _alpha: Tensor = field(default_factory=lambda: torch.tensor(0.0), repr=False)

    def added_to(self, hooks: FitHooks) -> FitHooks:
        """The hooks of a pass with this loss, and with what must be done before each epoch."""

        def before_epoch(module: nn.Module, epoch: int) -> None:
            if hooks.before_epoch is not None:
                hooks.before_epoch(module, epoch)
            self.before_epoch(module, epoch)

        return replace(hooks, before_epoch=before_epoch, loss=self.loss)

    def before_epoch(self, student: nn.Module, epoch: int) -> None:
        """Sets alpha, and brings the teacher to the student's device."""
        self._alpha.fill_(alpha_at(self.options, epoch, self.epochs))
        place = next(student.parameters()).device
        self.teacher.module.to(place)

    def loss(self, inputs: Tensor, outputs: tuple[Tensor, ...], batch: Any) -> Tensor:
        """The loss of a batch, a scalar.

        Takes normalized float32 `inputs` (n, channels, height, width), the student's `outputs` for them, and the task's
        `batch` of their targets.
        """
        with torch.no_grad():
            teacher_outputs = outputs_of(self.teacher.module(inputs))
        soft = self.task.soft_loss(outputs, teacher_outputs, self.options.temperature)
        hard = self.task.loss(outputs, batch, self.label_smoothing)
        loss = self._alpha * soft + (1 - self._alpha) * hard
        return loss if self.extra is None else loss + self.extra()
