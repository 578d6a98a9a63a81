"""Bring a graph of QuantizeLinear and DequantizeLinear into the form that a target's fuser looks for.

Every rewrite is a function that changes a graph in place and returns how many places it changed. Each is exact: in a
runtime that fuses nothing, the file computes the same numbers after it as before, bit for bit. Only `pool_averages` is
not, and says how.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir
from onnx_ir.passes import common as onnx_passes

from edgeopt.plugins import ExportError, Problem
from edgeopt_onnx.operators import LAYOUT
from edgeopt_onnx.options import Target
from edgeopt_onnx.quantization import (
    DEQUANTIZE,
    QUANTIZE,
    Affine,
    affine,
    constant,
    initializer,
    nodes,
    producer,
    readers,
    remove,
)

_SHIFT = 128  # from int8 to uint8


def canonicalize(model: onnx_ir.Model, target: Target) -> dict[str, int]:
    """Rewrite a model for a target; returns how often each rewrite was made, by its name.

    Raises `ExportError` where the target is "tensorrt" and the graph has what TensorRT refuses.
    """
    if target == "tensorrt":
        require_symmetric(model.graph)
    counts = {rewrite.__name__: rewrite(model.graph) for rewrite in REWRITES[target]}
    onnx_passes.RemoveUnusedNodesPass()(model)
    return counts


def move_layout_to_integers(graph: onnx_ir.Graph) -> int:
    """Let each operator that only moves values, such as Reshape, move integers, and dequantize behind it.

    ONNX Runtime does so itself, but from opset 21 on it makes QuantizeLinear nodes whose attribute and zero point
    disagree on their type, so that the file does not open (version 1.31). Exact: each value is dequantized as before.
    """
    count = 0
    for layout in nodes(graph, *LAYOUT):
        moved = layout.outputs[0]
        dequantize = producer(layout.inputs[0], DEQUANTIZE)
        parameters = affine(dequantize) if dequantize is not None else None
        if dequantize is None or parameters is None or not parameters.per_tensor or moved.is_graph_output():
            continue
        integers = dequantize.inputs[0]
        if integers is None or integers.is_initializer():
            continue  # weights
        values = onnx_ir.Value(name=f"{moved.name}_dequantized", type=moved.type, shape=moved.shape)
        moved.replace_all_uses_with(values)
        layout.replace_input_with(0, integers)
        moved.type = onnx_ir.TensorType(onnx_ir.DataType.from_numpy(parameters.zero_point.dtype))
        inputs = [moved, *dequantize.inputs[1:]]
        graph.insert_after(layout, onnx_ir.Node("", DEQUANTIZE, inputs, outputs=[values], name=values.name))
        count += 1
    return count


def remove_redundant_clips(graph: onnx_ir.Graph) -> int:
    """Take out each Clip and Relu whose readers all quantize to a range that clips as much.

    Exact, because quantization is monotone: where a bound becomes the smallest or largest integer, so does all
    beyond it.
    """
    count = 0
    for node in nodes(graph, "Relu", "Clip"):
        value = node.outputs[0]
        after = readers(value)
        if not after or value.is_graph_output() or any(each.op_type != QUANTIZE for each in after):
            continue
        bounds = _clip_bounds(node)
        if bounds is None or not all(_clips(each, *bounds) for each in after):
            continue
        source = node.inputs[0]
        assert source is not None  # neither has an optional first input
        remove(graph, node, source)
        count += 1
    return count


def clip_behind_quantization(graph: onnx_ir.Graph) -> int:
    """Move each Clip and Relu whose readers all quantize behind them, so that the layer before it can be fused.

    There it clips their integers. Symmetric ranges need this, because a ReLU cuts off their negative half. Exact:
    quantization is monotone, so clipping commutes with it.
    """
    count = 0
    for clip in nodes(graph, "Relu", "Clip"):
        source, value = clip.inputs[0], clip.outputs[0]
        after = readers(value)
        bounds = _clip_bounds(clip)
        if source is None or bounds is None or not after or value.is_graph_output():
            continue
        if any(each.op_type != QUANTIZE or each.outputs[0].is_graph_output() for each in after):
            continue
        parameters = [affine(each) for each in after]
        if any(each is None or not each.per_tensor for each in parameters):
            continue
        for quantize, each in zip(after, parameters, strict=True):
            assert each is not None
            integers = quantize.outputs[0]
            clipped = _clip_of_integers(graph, quantize, integers, f"{integers.name}_clipped_behind", each, bounds)
            if (node := clipped.producer()) is not None and clipped is not integers:
                integers.replace_all_uses_with(clipped)
                node.replace_input_with(0, integers)
        remove(graph, clip, source)
        count += 1
    return count


def _clip_of_integers(
    graph: onnx_ir.Graph,
    before: onnx_ir.Node,
    integers: onnx_ir.Value,
    name: str,
    parameters: Affine,
    bounds: tuple[float | None, float | None],
) -> onnx_ir.Value:
    """`integers`, clipped to those that `bounds` become.

    A node after `before` does that; where the bounds become the type's own limits, `integers` are returned as they are.
    """
    dtype = parameters.zero_point.dtype
    limits = np.iinfo(dtype)
    low, high = (
        limit if bound is None else int(parameters.quantize(bound).item())
        for bound, limit in zip(bounds, (limits.min, limits.max), strict=True)
    )
    if (low, high) == (limits.min, limits.max):
        return integers
    clipped = onnx_ir.Value(
        name=name,
        type=onnx_ir.TensorType(onnx_ir.DataType.from_numpy(dtype)),
        shape=integers.shape,
    )
    ends = [initializer(graph, f"{dtype}_{end}", np.array(end, dtype)) for end in (low, high)]
    node = onnx_ir.Node("", "Clip", [integers, *ends], outputs=[clipped], name=name)
    graph.insert_after(before, node)
    return clipped


def _clip_bounds(node: onnx_ir.Node) -> tuple[float | None, float | None] | None:
    """The lower and the upper bound, each None where there is none; None for the pair where a bound is computed."""
    if node.op_type == "Relu":
        return 0.0, None
    bounds: list[float | None] = []
    for index in (1, 2):
        given = node.inputs[index] if index < len(node.inputs) else None
        if given is None:
            bounds.append(None)
            continue
        value = constant(given)
        if value is None or value.size != 1:
            return None
        bounds.append(float(value.item()))
    return bounds[0], bounds[1]


def _clips(quantize: onnx_ir.Node, low: float | None, high: float | None) -> bool:
    """Whether values below `low` and above `high` become the integers that `low` and `high` become."""
    parameters = affine(quantize)
    if parameters is None:
        return False
    limits = np.iinfo(parameters.zero_point.dtype)

    def becomes(bound: float | None, limit: int) -> bool:
        return bound is None or bool((parameters.quantize(bound) == limit).all())

    return becomes(low, limits.min) and becomes(high, limits.max)


def merge_requantization(graph: onnx_ir.Graph) -> int:
    """Take out each quantization of what was dequantized with the same scale and zero point.

    Exact: scale * (integer - zero point) / scale is less than half a step from the integer it started from.
    """
    count = 0
    for quantize in nodes(graph, QUANTIZE):
        dequantize = producer(quantize.inputs[0], DEQUANTIZE)
        if dequantize is None or quantize.outputs[0].is_graph_output():
            continue
        parameters = affine(quantize)
        if parameters is None or not parameters.per_tensor or parameters != affine(dequantize):
            continue
        integers = dequantize.inputs[0]
        assert integers is not None  # the first input of DequantizeLinear is not optional
        remove(graph, quantize, integers)
        count += 1
    return count


def make_activations_unsigned(graph: onnx_ir.Graph) -> int:
    """Turn int8 activations into uint8, the only ones that ONNX Runtime fuses on x86.

    Integers and zero points move by 128.
    Exact: the integers saturate at the same values, and the difference of integer and zero point stays.
    """
    count = 0
    for quantize in nodes(graph, QUANTIZE):
        parameters = affine(quantize)
        integers = quantize.outputs[0]
        after = readers(integers)
        if (
            parameters is None
            or parameters.zero_point.dtype != np.int8
            or not parameters.per_tensor
            or integers.is_graph_output()
            or any(each.op_type != DEQUANTIZE or affine(each) != parameters for each in after)
        ):
            continue
        shifted = parameters.zero_point.astype(np.int16) + _SHIFT
        name = f"zero_point_{shifted.item()}{'' if shifted.ndim == 0 else '_1d'}"
        zero_point = initializer(graph, name, shifted.astype(np.uint8))
        for node in (quantize, *after):
            node.resize_inputs(3)
            node.replace_input_with(2, zero_point)
            node.attributes.pop("output_dtype", None)  # the zero point says it
        integers.dtype = onnx_ir.DataType.UINT8
        count += 1
    return count


def clip_integers(graph: onnx_ir.Graph) -> int:
    """Let each Clip and Relu between a DequantizeLinear and a QuantizeLinear of equal parameters clip the integers.

    Exact: quantization is monotone, so clipping commutes with it, and nothing else is left between the two.
    """
    count = 0
    for quantize in nodes(graph, QUANTIZE):
        clip = producer(quantize.inputs[0], "Relu", "Clip")
        dequantize = producer(clip.inputs[0], DEQUANTIZE) if clip else None
        bounds = _clip_bounds(clip) if clip else None
        parameters = affine(quantize)
        if (
            clip is None
            or dequantize is None
            or bounds is None
            or parameters is None
            or not parameters.per_tensor
            or parameters != affine(dequantize)
            or quantize.outputs[0].is_graph_output()
        ):
            continue
        integers = dequantize.inputs[0]
        assert integers is not None  # the first input of DequantizeLinear is not optional
        name = f"{quantize.outputs[0].name}_clipped"
        integers = _clip_of_integers(graph, clip, integers, name, parameters, bounds)
        remove(graph, quantize, integers)
        count += 1
    return count


def pool_averages(graph: onnx_ir.Graph) -> int:
    """Turn a quantized mean over height and width into GlobalAveragePool, which ONNX Runtime has in integers.

    Exact but for the order of additions: a mean that lies between two steps may be rounded to the other one.
    """
    count = 0
    for mean in nodes(graph, "ReduceMean"):
        source, value = mean.inputs[0], mean.outputs[0]
        after = readers(value)
        if (
            producer(source, DEQUANTIZE) is None
            or not after
            or any(each.op_type != QUANTIZE for each in after)
            or value.is_graph_output()
            or not _over_height_and_width(mean)
        ):
            continue
        pooled = onnx_ir.Value(name=f"{value.name}_pooled", type=value.type, shape=value.shape)
        graph.insert_before(mean, onnx_ir.Node("", "GlobalAveragePool", [source], outputs=[pooled], name=mean.name))
        remove(graph, mean, pooled)
        count += 1
    return count


def _over_height_and_width(mean: onnx_ir.Node) -> bool:
    source = mean.inputs[0]
    axes = constant(mean.inputs[1]) if len(mean.inputs) > 1 else None
    keeps = mean.attributes.get_int("keepdims", 1)
    if source is None or source.shape is None or axes is None or not keeps:
        return False
    rank = len(source.shape)
    return rank == 4 and sorted(int(axis) % rank for axis in axes) == [2, 3]


def restore_float_biases(graph: onnx_ir.Graph) -> int:
    """Turn each int32 bias behind a DequantizeLinear into its float32 values: TensorRT's parser refuses int32."""
    count = 0
    for dequantize in nodes(graph, DEQUANTIZE):
        integers = constant(dequantize.inputs[0])
        parameters = affine(dequantize)
        if integers is None or parameters is None or integers.dtype != np.int32 or integers.ndim != 1:
            continue
        steps = integers - parameters.zero_point
        values = steps.astype(np.float32) * parameters.scale
        remove(graph, dequantize, initializer(graph, f"{dequantize.outputs[0].name}_float", values))
        count += 1
    return count


def require_symmetric(graph: onnx_ir.Graph) -> None:
    """Raise `ExportError` where a zero point is not 0: TensorRT knows symmetric int8 alone."""
    shifted = []
    for node in nodes(graph, QUANTIZE, DEQUANTIZE):
        parameters = affine(node)
        if parameters is None or parameters.zero_point.any() or parameters.zero_point.dtype == np.uint8:
            shifted.append(node.name or node.outputs[0].name)
    if shifted:
        raise ExportError(
            Problem(
                f"TensorRT takes symmetric int8 alone, and {len(shifted)} quantizers of this program have a zero point"
                f", the first at {shifted[0]}",
                'quantize with `quantizer = "tensorrt"`, or choose another target',
                option="target",
            )
        )


_FOR_PROCESSORS = (
    move_layout_to_integers,
    merge_requantization,
    clip_integers,
    remove_redundant_clips,
    clip_behind_quantization,
    pool_averages,
)
REWRITES: dict[Target, tuple[Callable[[onnx_ir.Graph], int], ...]] = {
    "x86": (make_activations_unsigned, *_FOR_PROCESSORS),
    "arm": _FOR_PROCESSORS,
    "tensorrt": (merge_requantization, remove_redundant_clips, restore_float_biases),
}
"""What is done for each target, in order."""
