"""Programs that ONNX can take as they are, without torch's walk through all their operators.

`torch.onnx.export` first traces a program anew, to take operators apart that ONNX has no translation of. With the batch
as a symbol that is half the time of an export, and for most networks it changes few kinds of operators alone: those
that write into their input, averages over whole maps, normalization, dropout, and flattening.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
import torch.ao.quantization.fx._decomposed
from torch.export import ExportedProgram
from torch.fx import Graph, Node
from torch.onnx._internal.exporter import _fx_passes

aten = torch.ops.aten
_quantized = torch.ops.quantized_decomposed

_OF_THE_SAME_VALUES = {
    aten.add_.Tensor: aten.add.Tensor,
    aten.hardsigmoid_.default: aten.hardsigmoid.default,
    aten.hardswish_.default: aten.hardswish.default,
    aten.hardtanh_.default: aten.hardtanh.default,
    aten.leaky_relu_.default: aten.leaky_relu.default,
    aten.mul_.Tensor: aten.mul.Tensor,
    aten.relu_.default: aten.relu.default,
    aten.sigmoid_.default: aten.sigmoid.default,
    aten.silu_.default: aten.silu.default,
}
"""By an operator that writes into its first input, the one that returns a new tensor."""

_NEW = {
    *_OF_THE_SAME_VALUES.values(),
    aten.batch_norm.default,
    aten.cat.default,
    aten.clamp.default,
    aten.conv2d.default,
    aten.linear.default,
    aten.max_pool2d.default,
    aten.mean.dim,
    _quantized.dequantize_per_channel.default,
    _quantized.dequantize_per_tensor.default,
    _quantized.quantize_per_channel.default,
    _quantized.quantize_per_tensor.default,
}
"""Operators that ONNX has a translation of, and whose result is a tensor of its own."""

_NORMALIZED = aten._native_batch_norm_legit_no_training.default  # noqa: SLF001 - an operator of ATen, as torch names it
_PLAIN = {*_NEW - {aten.batch_norm.default}, _NORMALIZED, operator.getitem, aten.sym_size.int, aten.view.default}
_DROPOUT = {aten.dropout.default, aten.dropout_.default}
_IS_TRAINING = 5
"""Where `batch_norm` is told whether it trains."""


@contextmanager
def untraced_where_plain(program: ExportedProgram) -> Iterator[None]:
    """Within, `torch.onnx.export` takes `program` as it is, if all its operators have a translation.

    Those that stand for others are exchanged for them, in place; the program computes the same. One with any operator
    that is not known here is traced as ever, and so are all with a torch that does this step elsewhere.
    """
    graph = program.graph
    for node in list(graph.nodes):
        _exchange_in_place(node)
    for node in list(graph.nodes):
        _exchange(graph, node)
    targets = {node.target for node in graph.nodes if node.op not in ("placeholder", "output")}
    if targets <= _PLAIN and hasattr(_fx_passes, "decompose_with_registry"):
        with patch.object(_fx_passes, "decompose_with_registry", lambda program, _registry: program):
            yield
    else:
        yield


def _exchange_in_place(node: Node) -> None:
    if node.target in _OF_THE_SAME_VALUES and _is_the_last_to_read(node):
        node.target = _OF_THE_SAME_VALUES[node.target]


def _exchange(graph: Graph, node: Node) -> None:
    if node.target is aten.adaptive_avg_pool2d.default and _sides(node.args[1]) == (1, 1):
        node.target, node.args = aten.mean.dim, (node.args[0], [-1, -2], True)
    elif node.target is aten.flatten.using_ints and tuple(node.args[1:]) in ((1,), (1, -1)):
        _flatten(graph, node)
    elif node.target is aten.batch_norm.default and node.args[_IS_TRAINING] is False:
        _normalize(graph, node)
    elif node.target in _DROPOUT and node.args[2:] == (False,):
        node.replace_all_uses_with(node.all_input_nodes[0])
        graph.erase_node(node)


def _is_the_last_to_read(node: Node) -> bool:
    """Whether nobody sees that a node has written into its first input: neither a later node nor a view of it."""
    written = node.args[0]
    if not isinstance(written, Node) or written.target not in _NEW:
        return False
    if any(source.meta["val"].dtype != written.meta["val"].dtype for source in node.all_input_nodes):
        return False  # a new tensor would have the wider of the two types
    others = [user for user in written.users if user is not node]
    return all(user < node and user.target in _NEW for user in others)


def _sides(sizes: object) -> tuple[object, ...]:
    return tuple(sizes) if isinstance(sizes, list | tuple) else (sizes, sizes)


def _flatten(graph: Graph, node: Node) -> None:
    """Exchanges flattening of all but the batch for a view, whose sizes must be known."""
    source = node.args[0]
    batch, *sizes = node.meta["val"].shape
    if not isinstance(source, Node) or not all(type(size) is int for size in sizes):
        return
    if type(batch) is not int:
        with graph.inserting_before(node):
            first = graph.call_function(aten.sym_size.int, (source, 0))
        first.meta["val"] = batch
        batch = first
    node.target, node.args = aten.view.default, (source, [batch, *sizes])


def _normalize(graph: Graph, node: Node) -> None:
    """Exchanges BatchNorm for the operator that never trains; that one returns statistics, too, which are empty."""
    tensors, (momentum, epsilon) = node.args[:_IS_TRAINING], node.args[_IS_TRAINING + 1 : _IS_TRAINING + 3]
    with graph.inserting_before(node):
        normalized = graph.call_function(_NORMALIZED, (*tensors, momentum, epsilon))
    value = node.meta["val"]
    normalized.meta = node.meta | {"val": (value, value.new_empty(0), value.new_empty(0))}
    node.target, node.args = operator.getitem, (normalized, 0)
