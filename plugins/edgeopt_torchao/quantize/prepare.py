"""Make a captured program ready for calibration or for quantization-aware training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torchao.quantization.pt2e import FakeQuantizeBase, ObserverBase
from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e, prepare_qat_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationSpec, Quantizer
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from edgeopt.networks.batch_norms import fold_batch_norms, groups_of, hide_batch_norms
from edgeopt.networks.layers import LayerKind, layer_call
from edgeopt.plugins import NothingChangedError
from edgeopt_torchao.bits.learned_step import learn_steps
from edgeopt_torchao.graph.around import QuantizerAround
from edgeopt_torchao.graph.batch_norm import (
    BatchNorm,
    called_module,
    restore_batch_norms,
    rounding_scale,
)
from edgeopt_torchao.graph.dropout import put_back_dropouts, take_out_dropouts
from edgeopt_torchao.graph.fake_quantize import FakeQuantizer, replace_fake_quantizers
from edgeopt_torchao.graph.input_ranges import observe_between_pixels
from edgeopt_torchao.graph.repeated_calls import separate_calls
from edgeopt_torchao.graph.saturation import observe_what_is_told_apart

_PER_CHANNEL = (torch.per_channel_symmetric, torch.per_channel_affine)


def prepare_ptq(
    program: ExportedProgram, quantizer: Quantizer, change: Callable[[GraphModule], None] | None = None
) -> GraphModule:
    """A copy of `program` in evaluation mode, with BatchNorm folded and an observer wherever `quantizer` asks for one.

    `change` may do something to the float graph first.

    Raises `NothingChangedError` when the quantizer asks for none.
    """
    module = copy.deepcopy(program.module())
    take_out_dropouts(module)
    separate_calls(module, tied=False)
    if change is not None:
        change(module)
    fold_batch_norms(module)
    hide_batch_norms(module, behind_layers=True)
    prepared: GraphModule = prepare_pt2e(module, quantizer)
    _require_observers(prepared, quantizer)
    # A BatchNorm that was not folded becomes a module: torchao's conversion spends half a minute on a BatchNorm
    # operator.
    hide_batch_norms(prepared)
    restore_batch_norms(prepared)
    observe_what_is_told_apart(prepared)
    nn.Module.train(prepared, False)  # torchao's graphs refuse eval(); calibration must not move anything
    return prepared


@torch.no_grad()
def calibrate(prepared: GraphModule, batches: Iterable[Tensor]) -> int:
    """Run `batches`, float32 (n, channels, height, width), through the observers; returns how many samples they saw.

    Raises `ValueError` when there is no batch.
    """
    samples = 0
    for batch in batches:
        prepared(batch)
        samples += len(batch)
    if not samples:
        raise ValueError("there is no image to calibrate with")
    return samples


def prepare_qat(program: ExportedProgram, quantizer: Quantizer, learned_up_to_bits: int = 0) -> GraphModule:
    """A trainable copy of `program` that rounds weights and activations as `quantizer` asks, in training mode.

    The result is a module like any other: parameters under their old names, BatchNorm and Dropout that follow `train()`
    and `eval()`, ranges that move in training mode only.

    A convolution followed by BatchNorm rounds the weight that folding will give (Jacob et al., 2018, section 3.2,
    https://arxiv.org/abs/1712.05877), folded with the running variance (Krishnamoorthi, 2018, section 3.2.2,
    https://arxiv.org/abs/1806.08342). A weight's range is that of the current weight: moving averages are for
    activations, of which each batch shows a sample, while a weight is all there.

    The steps of what has at most `learned_up_to_bits` are learned; `learned_step.start_steps` starts them.

    Raises `NothingChangedError` when the quantizer asks for nothing, `PluginError` for what cannot be trained.
    """
    module = copy.deepcopy(program.module())
    dropouts = take_out_dropouts(module)
    separate_calls(module, tied=True)
    prepared = prepare_qat_pt2e(module, _ForTraining(quantizer))
    _require_observers(prepared, quantizer)
    put_back_dropouts(prepared, dropouts)
    restore_batch_norms(prepared)
    prepared.load_state_dict(
        program.state_dict, strict=False
    )  # an evaluation-mode graph lost the count of batches seen
    replace_fake_quantizers(prepared)
    observe_between_pixels(prepared)
    observe_what_is_told_apart(prepared)
    _observe_current_weights(prepared)
    _round_folded_weights(prepared)
    learn_steps(prepared, learned_up_to_bits)
    prepared.recompile()
    # torchao shadows these two with functions that raise, for want of what `restore_batch_norms` did.
    for name in ("train", "eval"):
        vars(prepared).pop(name, None)
    return cast("GraphModule", prepared.train())


class _ForTraining(QuantizerAround):
    """`quantizer`, with what torchao loses of its annotations, and BatchNorm hidden from torchao's fusion as soon as
    they are made.
    """

    def annotate(self, model: GraphModule) -> GraphModule:
        annotated = super().annotate(model)
        _keep_channel_axes(annotated)
        return annotated

    def validate(self, model: GraphModule) -> None:
        super().validate(model)
        hide_batch_norms(model)


def _keep_channel_axes(model: GraphModule) -> None:
    """Tells each fake quantizer of a scale per channel which axis has the channels.

    torchao hands `ch_axis` only to constructors with "PerChannel" in their name. Those of fake quantizers have it in
    the name of their observer at most, and would take the first axis: for a transposed convolution that of inputs.
    """
    for node in model.graph.nodes:
        annotation = node.meta.get(Q_ANNOTATION_KEY)
        for source, spec in [] if annotation is None else list(annotation.input_qspec_map.items()):
            if isinstance(spec, QuantizationSpec) and spec.qscheme in _PER_CHANNEL and spec.ch_axis:
                given: Any = spec.observer_or_fake_quant_ctr
                partial = getattr(given, "p", None)  # of a constructor with arguments, which does not nest
                kind, arguments = (given, {}) if partial is None else (partial.func, partial.keywords)
                made = kind.with_args(**{**arguments, "ch_axis": spec.ch_axis})
                annotation.input_qspec_map[source] = replace(spec, observer_or_fake_quant_ctr=made)


def _require_observers(prepared: GraphModule, quantizer: Quantizer) -> None:
    if not any(isinstance(module, (ObserverBase, FakeQuantizeBase)) for module in prepared.modules()):
        raise NothingChangedError(
            f"{type(quantizer).__name__} found nothing to quantize in this model",
            hint="the model may have no layer that this quantizer knows, or the quantizer's options exclude them all",
        )


def _observe_current_weights(prepared: GraphModule) -> None:
    for node in prepared.graph.nodes:
        quantizer = called_module(prepared, node)
        if isinstance(quantizer, FakeQuantizer) and node.args[0].op == "get_attr":
            quantizer.activation_post_process.averaging_constant = 1.0


def _round_folded_weights(prepared: GraphModule) -> None:
    """Round the weight of each convolution that only a BatchNorm reads in the units that folding will bring it to."""
    graph = prepared.graph
    for node in list(graph.nodes):
        batch_norm = called_module(prepared, node)
        if not isinstance(batch_norm, BatchNorm):
            continue
        convolution = node.args[0]
        layer = layer_call(convolution)
        if layer is None or layer.kind is LayerKind.LINEAR or groups_of(layer) > 1 or len(convolution.users) > 1:
            continue
        quantize, axis = convolution.args[1], layer.operator.weight_axis
        quantizer = called_module(prepared, quantize)
        if not isinstance(quantizer, FakeQuantizer) or (quantizer.is_per_channel and quantizer.channel_axis != axis):
            continue
        quantizer.channel_axis = axis
        weight = quantize.args[0]
        if weight.op != "get_attr" or len(weight.users) > 1 or len(quantize.users) > 1:
            continue  # one weight read by two layers cannot carry two scales
        with graph.inserting_before(quantize):
            gain = graph.get_attr(f"{node.target}.weight") if batch_norm.weight is not None else None
            variance = graph.get_attr(f"{node.target}.running_var")
            scale = graph.call_function(rounding_scale, (gain, variance, batch_norm.eps))
        quantize.args = (weight, scale)
