"""The pass `qat`: training with rounded weights and activations, from the float state."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.fx import GraphModule

from edgeopt.errors import FunctionChangedError
from edgeopt.plugin import PassContext
from edgeopt.program import capture
from edgeopt.types import Json, ModelState, PassRecord
from edgeopt_distillation.taught import fit_taught, teacher_of
from edgeopt_lightning.fit import FitHooks
from edgeopt_torchao.agreement import compare
from edgeopt_torchao.convert import convert
from edgeopt_torchao.freeze import freeze_batch_norm, freeze_observers
from edgeopt_torchao.options import QatOptions
from edgeopt_torchao.prepare import prepare_qat
from edgeopt_torchao.result import batches, quantized_state

CONVERT_TOLERANCE = 0.1
"""Of the logits' range. Both round alike, but a sum that lies between two steps may fall to either side when it is added up in
another order: that moved the logits of trained networks by up to 2 % of their range, and of untrained ones by 3 %. A conversion
that is wrong moves them by more than the range."""


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


def train_quantized(state: ModelState, options: QatOptions, context: PassContext) -> ModelState:
    """A state with the program of a module that was trained on with its quantization in the loop.

    The epoch is chosen by the validation score of the *converted* model, which is what ships.

    Raises what `teacher_of` and `fit` raise; `NothingChangedError` when nothing is quantized or frozen as asked; `FunctionChangedError` when
    conversion does not keep what was trained.
    """
    plugin = options.quantizer.plugin
    example = next(batches(state, context.data.validation, 2, 2))
    program = capture(state.module, example, state.batch_range)
    prepared = prepare_qat(program, plugin.build(options.quantizer.options, True))
    half = math.ceil(options.epochs / 2)
    freezing = Freezing(options.observer_epochs or half, options.batch_norm_epochs or half)
    hooks = FitHooks(before_epoch=freezing.apply, scored=_converted, reestimate_batch_norm=False)
    # fake quantizers need float32: their ranges overflow in half precision
    float32 = replace(context, trainer=context.trainer.model_copy(update={"precision": "32"}))
    teacher = teacher_of(options, state.task, context)
    result = fit_taught(prepared, teacher, state.task, options, float32, hooks, label="qat")

    converted = convert(prepared)
    difference = _check_conversion(prepared, converted, state, context)
    facts = {"quantizer": plugin.name, **result.facts, **freezing.facts(), "conversion_logit_difference": difference}
    warnings = list(result.warnings)
    if options.epochs == 1:
        warnings.append("one epoch leaves none in which ranges are frozen")
    record = PassRecord("qat", facts, result.curves, tuple(warnings))
    return quantized_state(state, converted, example, record, plugin.precision, context)


def _converted(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model that would ship if the training ended here."""
    assert isinstance(module, GraphModule)  # what `prepare_qat` returned
    return convert(module)


def _check_conversion(prepared: GraphModule, converted: GraphModule, state: ModelState, context: PassContext) -> float:
    """The largest difference that conversion made to a logit; raises `FunctionChangedError` when that is too much."""
    count = context.budget.of(context.budget.pictures, 64)
    prepared.eval()
    agreement = compare(prepared, converted, batches(state, context.data.validation, 32, count))
    if not agreement.relative_difference <= CONVERT_TOLERANCE:  # written so that NaN fails too
        raise FunctionChangedError(
            f"conversion changed the logits by {agreement.max_logit_difference:.3g}, whose range is {agreement.logit_range:.3g}",
            hint="this is a bug in edgeopt or torchao: please report the model and the quantizer",
        )
    return agreement.max_logit_difference
