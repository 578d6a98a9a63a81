"""From a prepared model to a quantized one."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import FakeQuantizeBase
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

from edgeopt.networks.batch_norms import scaled_weight
from edgeopt.networks.capture import make_contiguous
from edgeopt.networks.layers import LayerKind, layer_call
from edgeopt.networks.tensors import name_beside, named_tensor, set_named_tensor
from edgeopt.plugins import NothingChangedError
from edgeopt_torchao.bits.learned_step import settle_steps
from edgeopt_torchao.graph.batch_norm import BatchNorm, called_module, folding_scale
from edgeopt_torchao.graph.dropout import remove_dropouts

OPERATORS = ("torch.ao.quantization.fx._decomposed",)
"""Modules whose import registers the operators of a converted program; `torch.export.load` needs them."""


def convert(prepared: GraphModule) -> GraphModule:
    """A copy of `prepared` in which integers take the place of fake quantizers and observers.

    BatchNorm is folded into the convolutions before it. The weights stay float behind a quantize operator ("unfolded"),
    which is the form that every exporter can start from.

    Raises `NothingChangedError` when some range was never observed.
    """
    model = copy.deepcopy(prepared)
    make_contiguous(model)
    nn.Module.train(model, False)  # torchao forbids eval() on what prepare_pt2e returns
    settle_steps(model)
    _require_ranges(model)
    _fold_batch_norms(model)
    remove_dropouts(model)
    model.graph.eliminate_dead_code()
    model.recompile()
    converted = convert_pt2e(model, fold_quantize=False)
    for name in ("train", "eval"):  # torch.export restores the mode of what it exports
        vars(converted).pop(name, None)
    return cast("GraphModule", converted.eval())


def _require_ranges(model: GraphModule) -> None:
    unseen = []
    for node in model.graph.nodes:
        module = called_module(model, node)
        observer = (
            getattr(module, "activation_post_process", module) if isinstance(module, FakeQuantizeBase) else module
        )
        low = getattr(observer, "min_val", None)
        if isinstance(low, Tensor) and (low.numel() == 0 or bool(torch.isinf(low).any())):
            unseen.append(str(node.args[0]))
    if unseen:
        raise NothingChangedError(
            f"{len(unseen)} ranges were never observed, the first at {unseen[0]}",
            hint="calibrate, or train for at least one step, before converting",
        )


def _fold_batch_norms(model: GraphModule) -> None:
    """Fold each BatchNorm whose weight `prepare_qat` rounded in folded units; any other stays a module of its own."""
    for node in list(model.graph.nodes):
        batch_norm = called_module(model, node)
        if not isinstance(batch_norm, BatchNorm) or not rounds_folded_weight(convolution := node.args[0]):
            continue
        quantize = convolution.args[1]
        weight_name = str(quantize.args[0].target)
        bias_node = convolution.args[2] if len(convolution.args) > 2 else None
        bias = None if bias_node is None else named_tensor(model, str(bias_node.target))
        layer = layer_call(convolution)
        assert layer is not None  # its weight is rounded in folded units
        weight, bias = _folded(batch_norm, named_tensor(model, weight_name), bias, layer.kind)
        bias_name = name_beside(weight_name, "bias")
        set_named_tensor(model, weight_name, nn.Parameter(weight))
        set_named_tensor(model, bias_name, nn.Parameter(bias))
        with model.graph.inserting_before(convolution):
            bias_node = model.graph.get_attr(bias_name)
        quantize.args = quantize.args[:1]
        convolution.args = (convolution.args[0], quantize, bias_node, *convolution.args[3:])
        node.replace_all_uses_with(convolution)
        model.graph.erase_node(node)


def rounds_folded_weight(convolution: Node) -> bool:
    """Whether a convolution of a prepared graph rounds its weight in the units that folding its BatchNorm brings."""
    quantize = convolution.args[1] if len(convolution.args) > 1 else None
    return isinstance(quantize, Node) and quantize.op == "call_module" and len(quantize.args) == 2


@torch.no_grad()
def _folded(batch_norm: BatchNorm, weight: Tensor, bias: Tensor | None, kind: LayerKind) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does its own and `batch_norm`'s work."""
    assert batch_norm.running_var is not None  # `_batch_norm` gives every one its statistics
    assert batch_norm.running_mean is not None
    scale = folding_scale(batch_norm.weight, batch_norm.running_var, batch_norm.eps)
    mean = batch_norm.running_mean if bias is None else batch_norm.running_mean - bias
    shift = -mean * scale
    if batch_norm.bias is not None:
        shift = shift + batch_norm.bias
    return scaled_weight(weight, scale, kind), shift
