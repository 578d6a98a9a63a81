"""The pass `qat`: training with rounded weights and activations, from the float state."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.fx import GraphModule

from edgeopt.networks.capture import capture
from edgeopt.plugins import FunctionChangedError, Json, ModelState, PassContext, PassRecord
from edgeopt_distillation.fit_with_teacher import fit_taught, teacher_of
from edgeopt_lightning.fit.hooks import FitHooks
from edgeopt_torchao.bits.learned_step import dampen, learned_steps, share_between_integers, start_steps
from edgeopt_torchao.bits.mixed import choose_bits
from edgeopt_torchao.bits.rules import target_of
from edgeopt_torchao.graph.batches import batches
from edgeopt_torchao.options import QatOptions
from edgeopt_torchao.quantize.agreement import compare
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.freeze import freeze_batch_norm, freeze_observers
from edgeopt_torchao.quantize.prepare import prepare_qat
from edgeopt_torchao.quantize.result import quantized_state

CONVERT_TOLERANCE = 0.1
"""How far conversion may move a logit, as a share of the logits' range.

Both programs round alike, but a sum that lies between two steps may fall to either side when it is added up in another
order: that moved the logits of trained networks by up to 2 % of their range, and of untrained ones by 3 %. A conversion
that is wrong moves them by more than the range."""
NARROW_TOLERANCE = 0.5
"""The same below eight bits, where a step is wider: 16 % was seen in an untrained ResNet-18 with four bits."""


_LEARNED_UP_TO_BITS = {"observed": 0, "auto": 4, "learned": 8}
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
    program = capture(state.module, example, state.batch_range)
    bits = choose_bits(program, state, options.quantizer, options, options.batch_size, context)
    target = target_of(options.quantizer, bits, qat=True)
    prepared = prepare_qat(program, target.quantizer, _LEARNED_UP_TO_BITS[options.steps])
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
    # fake quantizers need float32: their ranges overflow in half precision
    float32 = replace(context, trainer=context.trainer.model_copy(update={"precision": "32"}))
    teacher = teacher_of(options, state.task, context)
    result = fit_taught(prepared, teacher, state.task, options, float32, hooks, label="qat")

    converted = convert(prepared)
    tolerance = CONVERT_TOLERANCE if target.precision == target.int8 else NARROW_TOLERANCE
    difference = _check_conversion(prepared, converted, state, context, tolerance)
    facts = {
        "quantizer": plugin.name,
        **target.facts(),
        **result.facts,
        **freezing.facts(),
        **learning.facts(),
        "conversion_logit_difference": difference,
    }
    warnings = list(result.warnings)
    if options.epochs == 1:
        warnings.append(
            "with one epoch, ranges of activations move until the end, and no step is trained with those that ship; "
            "with two epochs or more they are frozen for the second half"
        )
    record = PassRecord("qat", facts, result.curves, tuple(warnings), target.details())
    return quantized_state(state, converted, example, record, target.precision, context)


def _converted(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model that would ship if the training ended here."""
    assert isinstance(module, GraphModule)  # what `prepare_qat` returned
    return convert(module)


def _check_conversion(
    prepared: GraphModule, converted: GraphModule, state: ModelState, context: PassContext, tolerance: float
) -> float:
    """The largest difference that conversion made to a logit; raises `FunctionChangedError` when that is too much."""
    count = context.budget.of(context.budget.images, 64)
    prepared.eval()
    agreement = compare(prepared, converted, batches(state, context.data.validation, 32, count))
    if not agreement.relative_difference <= tolerance:  # written so that NaN fails too
        raise FunctionChangedError(
            f"conversion changed the logits by {agreement.max_logit_difference:.3g}, whose range is "
            f"{agreement.logit_range:.3g}",
            hint="this is a bug in edgeopt or torchao: please report the model and the quantizer",
        )
    return agreement.max_logit_difference
