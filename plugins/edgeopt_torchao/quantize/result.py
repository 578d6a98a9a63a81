"""From a converted model to the state that `ptq` and `qat` return, with the counts that the report shows."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule

from edgeopt.networks.capture import export_program, imports_of
from edgeopt.networks.copies import copy_module
from edgeopt.networks.outputs import outputs_in
from edgeopt.plugins import Form, ModelState, PassContext, PassRecord
from edgeopt_torchao.graph.batches import batches
from edgeopt_torchao.graph.layers import count_quantized
from edgeopt_torchao.quantize.agreement import compare
from edgeopt_torchao.quantize.biases import round_biases
from edgeopt_torchao.quantize.convert import OPERATORS

_COMPARED_IMAGES = 256
_LOW_AGREEMENT = 0.9


def quantized_state(
    state: ModelState,
    converted: GraphModule,
    example: Tensor,
    record: PassRecord,
    precision: str,
    context: PassContext,
) -> ModelState:
    """The state after quantization: the canonical, unfolded program, and what became of the layers.

    The biases of `converted` are rounded in place, as kernels round them.

    Raises `NothingChangedError` when no layer is quantized.
    """
    round_biases(converted)
    program = export_program(converted, example, state.batch_range)
    counts = count_quantized(program)
    count = context.budget.of(context.budget.images, _COMPARED_IMAGES)
    before = copy_module(state.module).cpu().eval()
    agreement = compare(
        lambda images: outputs_in(before(images), state.output_names),
        converted,
        batches(state, context.data.validation, 32, count),
        state.task,
    )
    facts = {
        **record.facts,
        "layers": counts.layers,
        "layers_quantized": counts.quantized,
        "weights_quantized": counts.quantized_weights,
        "activations_quantized": counts.quantized_activations,
        "layers_in_float": list(counts.float_layers),
        "agreement_with_float": agreement.top1,
        "max_logit_difference_to_float": agreement.max_logit_difference,
    }
    warnings = record.warnings
    if agreement.top1 < _LOW_AGREEMENT and not context.budget.images:
        text = (
            f"the quantized model agrees with the float one on {agreement.top1:.1%} of {agreement.samples} validation "
            "images"
        )
        warnings = (*warnings, text)
    return program_state(state, program, replace(record, facts=facts, warnings=warnings), precision)


def program_state(state: ModelState, program: ExportedProgram, record: PassRecord, precision: str) -> ModelState:
    """The state with a quantized program, which needs its operators to be imported before it is read."""
    after = state.after(record, program, form=Form.PROGRAM, precision=precision)
    return replace(after, imports=(*imports_of(program, state.imports), *OPERATORS))
