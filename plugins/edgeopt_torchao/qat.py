"""The pass `qat`: training with rounded weights and activations, from the float state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.fx import GraphModule

from edgeopt.networks.capture import capture_state
from edgeopt.plugins import Json, ModelState, PassContext, PassRecord, TrainingError
from edgeopt_distillation.fit_with_teacher import fit_taught, teacher_of
from edgeopt_distillation.teacher_loss import Teacher, load_teacher
from edgeopt_lightning.fit.hooks import FitHooks
from edgeopt_torchao.bits.learned_step import dampen, learned_steps, share_between_integers, start_steps
from edgeopt_torchao.bits.mixed import choose_bits
from edgeopt_torchao.bits.rules import target_of
from edgeopt_torchao.graph.batches import batches
from edgeopt_torchao.options import QatOptions
from edgeopt_torchao.quantize.agreement import Agreement, compare
from edgeopt_torchao.quantize.conversion_check import check_conversion
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.freeze import freeze_batch_norm, freeze_observers
from edgeopt_torchao.quantize.prepare import prepare_qat
from edgeopt_torchao.quantize.result import quantized_state

_CHECKED_IMAGES = 64
_SAME_TOP1 = 0.98
_CHECKED_AT_ONCE = 8  # images, whose rounded tensors are all held at once
_STARTING_IMAGES = 512


@dataclass
class Freezing:
    """The schedule of freezing, and what it came to.

    Counts are taken anew whenever something is frozen, so that a training that was resumed knows them too.
    """

    observer_epochs: int
    batch_norm_epochs: int
    observers_frozen: int = 0
    batch_norms_frozen: int = 0

    def apply(self, module: nn.Module, epoch: int) -> None:
        """Freezes what is due before `epoch`, counted from 0.

        Raises `NothingChangedError` when something is due and cannot be frozen.
        """
        if epoch >= self.observer_epochs:
            self.observers_frozen = freeze_observers(module)
        if epoch >= self.batch_norm_epochs:
            self.batch_norms_frozen = freeze_batch_norm(module)

    def facts(self) -> dict[str, Json]:
        """What the report shows."""
        return {
            "observer_epochs": self.observer_epochs,
            "batch_norm_epochs": self.batch_norm_epochs,
            "observers_frozen": self.observers_frozen,
            "batch_norms_frozen": self.batch_norms_frozen,
        }


@dataclass(frozen=True)
class Learning:
    """The learned steps of one training: their start, the dampening over `epochs`, and facts for the report."""

    prepared: GraphModule
    dampening: float
    epochs: int

    @property
    def steps(self) -> int:
        """How many there are."""
        return len(learned_steps(self.prepared))

    def start(self, state: ModelState, batch_size: int, context: PassContext) -> None:
        """Starts them, those of activations on the calibration split."""
        if self.steps:
            count = context.budget.of(context.budget.images, min(_STARTING_IMAGES, len(context.data.calibration)))
            start_steps(self.prepared, batches(state, context.data.calibration, batch_size, count))

    def constrain(self, module: nn.Module, epochs: float) -> None:
        """Lets weights settle, the more the nearer the end."""
        assert isinstance(module, GraphModule)  # what `prepare_qat` returned
        if self.dampening:
            dampen(module, self.dampening * (1 - math.cos(math.pi * min(1.0, epochs / self.epochs))) / 2)

    def facts(self) -> dict[str, Json]:
        """What the report shows."""
        if not self.steps:
            return {}
        return {
            "steps_learned": self.steps,
            "weights_between_two_integers": round(share_between_integers(self.prepared), 4),
        }


def train_quantized(state: ModelState, options: QatOptions, context: PassContext) -> ModelState:
    """A state with the program of a module that was trained on with its quantization in the loop.

    The epoch is chosen by the validation score of the *converted* model, which is what ships.

    Raises what `teacher_of` and `fit` raise; `NothingChangedError` when nothing is quantized or frozen as asked;
    `FunctionChangedError` when conversion does not keep what was trained.
    """
    plugin = options.quantizer.plugin
    example = next(batches(state, context.data.validation, 2, 2))
    captured = capture_state(state, example)
    program = captured.program
    bits = choose_bits(program, state, options.quantizer, options, options.batch_size, context)
    target = target_of(options.quantizer, bits, qat=True)
    prepared = prepare_qat(program, target.quantizer, options.learned_up_to_bits)
    learning = Learning(prepared, options.dampening, context.budget.of(context.budget.epochs, options.epochs))
    learning.start(state, options.batch_size, context)
    half = math.ceil(options.epochs / 2)
    freezing = Freezing(options.observer_epochs or half, options.batch_norm_epochs or half)
    hooks = FitHooks(
        before_epoch=freezing.apply,
        scored=_converted,
        constrain=learning.constrain if learning.steps else None,
        reestimate_batch_norm=False,
    )
    within = replace(
        context,
        # fake quantizers need float32: their ranges overflow in half precision
        trainer=context.trainer.model_copy(update={"precision": "32"}),
        # ranges that ship are those of whole images, as files will see them
        data=replace(context.data, augmentation=context.data.augmentation.model_copy(update={"mosaic": 0.0})),
    )
    taught = _taught(options, learning, state, context)
    result = fit_taught(prepared, taught.teacher, state.task, taught.options, within, hooks, label="qat")

    converted = convert(prepared)
    checked = _check_conversion(prepared, converted, state, context)
    facts = {
        "quantizer": plugin.name,
        **captured.facts(),
        **target.facts(),
        **result.facts,
        **freezing.facts(),
        **learning.facts(),
        **checked.facts(),
    }
    if context.data.augmentation.mosaic:
        facts["mosaic"] = "off"
    warnings = [*taught.warnings, *result.warnings, *checked.warnings()]
    if options.epochs == 1:
        warnings.append(
            "with one epoch, ranges of activations move until the end, and no step is trained with those that ship; "
            "with two epochs or more they are frozen for the second half"
        )
    record = PassRecord("qat", facts, result.curves, tuple(warnings), target.details())
    return quantized_state(state, converted, example, record, target.precision, context)


@dataclass(frozen=True)
class _Taught:
    """Who teaches, how the options are then, and what the user should know of it."""

    teacher: Teacher | None
    options: QatOptions
    warnings: tuple[str, ...] = ()


def _taught(options: QatOptions, learning: Learning, state: ModelState, context: PassContext) -> _Taught:
    """The teacher that the options name; where they are silent and steps are learned, the float model, if it can.

    Few bits leave much to choose, of which labels alone say little; the float model's answers keep the network near to
    what it was trained to (S. Esser et al., as in `bits.learned_step`, on knowledge distillation). Raises what
    `teacher_of` raises for a teacher that is named.
    """
    if options.teacher is not None or not learning.steps:
        return _Taught(teacher_of(options, state.task, context), options)
    try:
        teacher = load_teacher("float", state.task, context)
    except TrainingError as error:
        return _Taught(None, options, (f"trained without the float model as a teacher: {error.problems[0].message}",))
    return _Taught(teacher, options.model_copy(update={"control": False}))


def _converted(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model that would ship if the training ended here."""
    assert isinstance(module, GraphModule)  # what `prepare_qat` returned
    return convert(module)


@dataclass(frozen=True)
class Checked:
    """What the comparison of a converted program with the training came to."""

    tensors: int
    moved: float
    whole: Agreement

    def facts(self) -> dict[str, Json]:
        """What the report shows."""
        return {
            "conversion_tensors_compared": self.tensors,
            "conversion_largest_share_a_step_off": self.moved,
            "conversion_same_top1": self.whole.top1,
            "conversion_logit_difference": self.whole.max_logit_difference,
        }

    def warnings(self) -> Iterator[str]:
        """What the user should know."""
        if self.whole.top1 < _SAME_TOP1:
            yield (
                f"the converted program answers as the trained module on {self.whole.top1:.1%} of "
                f"{self.whole.samples} validation images: each layer rounds alike, and values between two integers "
                "that fall to the other side add up; what is scored and ships is the converted program"
            )


def _check_conversion(
    prepared: GraphModule, converted: GraphModule, state: ModelState, context: PassContext
) -> Checked:
    """Compares layer by layer on equal inputs, and then the answers of the two as wholes.

    Raises `FunctionChangedError` with the first layer that leaves its own rounding step.
    """
    images = context.data.validation
    count = context.budget.of(context.budget.images, _CHECKED_IMAGES)
    prepared.eval()
    check = check_conversion(prepared, converted, batches(state, images, _CHECKED_AT_ONCE, count))
    check.require_equal()
    whole = compare(prepared, converted, batches(state, images, 32, count), state.task)
    return Checked(len(check.tensors), check.moved, whole)
