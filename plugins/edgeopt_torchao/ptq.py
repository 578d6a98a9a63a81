"""The pass `ptq`: static quantization after training."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from edgeopt.plugin import PassContext
from edgeopt.program import capture
from edgeopt.types import ModelState, PassRecord
from edgeopt_torchao.convert import convert
from edgeopt_torchao.options import PtqOptions
from edgeopt_torchao.prepare import calibrate, prepare_ptq
from edgeopt_torchao.result import batches, quantized_state


def quantize(state: ModelState, options: PtqOptions, context: PassContext) -> ModelState:
    """A state with the quantized program of a module, its ranges observed on the calibration split.

    Raises `NothingChangedError` when the quantizer leaves every layer in float.
    """
    plugin = options.quantizer.plugin
    pictures = context.data.calibration
    count = context.budget.of(context.budget.pictures, len(pictures))
    with context.progress.bar("ptq: calibrating", count) as bar:

        def observed() -> Iterator[Tensor]:
            for batch in batches(state, pictures, options.batch_size, count):
                yield batch
                bar.advance(len(batch))

        example = next(batches(state, pictures, 2, 2))
        program = capture(state.module, example, state.batch_range)
        prepared = prepare_ptq(program, plugin.build(options.quantizer.options, False))
        calibrate(prepared, observed())
    converted = convert(prepared)
    record = PassRecord("ptq", {"quantizer": plugin.name, "calibration_pictures": count})
    return quantized_state(state, converted, example, record, plugin.precision, context)
