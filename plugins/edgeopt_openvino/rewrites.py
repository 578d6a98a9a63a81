"""What is written another way, so that OpenVINO's processor runs it faster: the same function, in other operators."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import openvino
from openvino import opset13 as operators

from edgeopt_openvino.operators import WEIGHTED, constant_behind

if TYPE_CHECKING:
    from numpy.typing import NDArray

_IMAGE_AXES = 4
_NUMBERED = re.compile(r"^([A-Z][A-Za-z0-9]*)_\d+")
"""How OpenVINO calls an operator that nobody has named."""


def rewrite(model: openvino.Model, *, is_quantized: bool) -> None:
    """Changes a quantized model in place, and then any as OpenVINO's own converter ends: operators are merged.

    A float file is what that converter would make, because NNCF takes the sum of a HardSigmoid for the bias of a layer.
    """
    # as optimum-intel does: `openvino.convert_model`, which does it in public, reports its use to the maker
    from openvino._offline_transformations import apply_moc_transformations

    if is_quantized:
        spell_out_hard_sigmoids(model)
    weights = _weights(model)
    names = {name: constant.get_friendly_name() for name, constant in weights.items()}
    apply_moc_transformations(model, cf=False)
    for name, constant in _weights(model).items():  # by whose names layers are known; some are computed anew
        constant.set_friendly_name(names.get(name, constant.get_friendly_name()))
    if is_quantized:
        fold_zero_points(model)
    for place, node in enumerate(model.get_ordered_ops()):  # else it is numbered through all models of the process
        node.set_friendly_name(_NUMBERED.sub(rf"\g<1>_{place}", node.get_friendly_name()))


def spell_out_hard_sigmoids(model: openvino.Model) -> int:
    """Writes each HardSigmoid as the sum, the clip and the product that it is; returns how many there were.

    OpenVINO has only a reference kernel for HardSigmoid, by itself, and fuses the three with the layer before, and with
    the product and the quantization behind: a call of int8 MobileNetV3-small, which has nine, takes 3 % less.
    """
    found = [node for node in model.get_ops() if node.get_type_name() == "HardSigmoid"]
    for node in found:
        slope, offset = (float(node.input_value(place).get_node().data) for place in (1, 2))
        moved = operators.add(node.input_value(0), operators.constant(offset / slope, openvino.Type.f32))
        clipped = operators.clamp(moved, 0.0, 1.0 / slope)
        scaled = operators.multiply(clipped, operators.constant(slope, openvino.Type.f32))
        scaled.output(0).set_names(node.output(0).get_names())  # the graph's output may be called so
        node.output(0).replace(scaled.output(0))
    return len(found)


def fold_zero_points(model: openvino.Model) -> int:
    """Has roundings whose range begins below zero begin at zero, where convolutions without padding alone read them,
    whose biases then take what was added; returns how many there were.

    The integers stay as they are, and so does what a convolution gives. OpenVINO adds a zero point's share to each of
    its calls: those of 21 roundings were 2 % of a call of int8 MobileNetV3-small.
    """
    found = [(node, layers) for node in model.get_ordered_ops() if (layers := _readers_that_can(node))]
    for node, layers in found:
        low, high = (node.input_value(place).get_node().data for place in (1, 2))
        for place, limit in ((3, np.zeros_like(low)), (4, high - low)):
            node.input(place).replace_source_output(operators.constant(limit).output(0))
        for layer in layers:
            sums = _value(layer.input_value(1).get_node()).sum(axis=(1, 2, 3))  # type: ignore[union-attr]  # as asked
            _add(layer, (float(low.item()) * sums).astype(np.float32).reshape(1, -1, 1, 1))
    return len(found)


def _readers_that_can(rounding: openvino.Node) -> list[openvino.Node]:
    """The convolutions behind a rounding whose range, the same for all channels, can begin at zero; none where it
    begins there already, or something else reads it too.
    """
    if rounding.get_type_name() != "FakeQuantize":
        return []
    limits = [rounding.input_value(place).get_node() for place in range(1, 5)]
    if any(each.get_type_name() != "Constant" or each.data.size != 1 for each in limits):
        return []
    low, high, low_given, high_given = (each.data.item() for each in limits)
    readers = [each.get_node() for each in rounding.output(0).get_target_inputs()]
    is_plain = (low, high) == (low_given, high_given) and low < 0 < high
    return readers if is_plain and all(map(_takes_a_bias, readers)) else []


def _takes_a_bias(node: openvino.Node) -> bool:
    """Whether a node is a convolution of images without padding, whose weight is known: where zeros are put around the
    input, what is added to it is not added to them.
    """
    if node.get_type_name() != "Convolution" or len(node.get_output_partial_shape(0)) != _IMAGE_AXES:
        return False
    said = node.get_attributes()
    has_padding = any([*said["pads_begin"], *said["pads_end"]]) or said["auto_pad"] not in ("explicit", "valid")
    return not has_padding and _value(node.input_value(1).get_node()) is not None


def _value(node: openvino.Node) -> NDArray[np.float64] | None:
    """The weight that a node gives: a constant, or integers with their scales; None for anything else."""
    match node.get_type_name():
        case "Constant":
            return np.asarray(node.data, dtype=np.float64)
        case "Convert":
            return _value(node.input_value(0).get_node())
        case "Multiply":
            parts = [_value(each.get_node()) for each in node.input_values()]
            return None if parts[0] is None or parts[1] is None else parts[0] * parts[1]
    return None


def _add(layer: openvino.Node, values: NDArray[np.float32]) -> None:
    """Adds to what a convolution gives: to its bias where it has one."""
    readers = list(layer.output(0).get_target_inputs())
    bias = readers[0].get_node()
    given = bias.input_value(1).get_node() if bias.get_type_name() == "Add" else None
    if len(readers) == 1 and given is not None and given.get_type_name() == "Constant":
        bias.input(1).replace_source_output(operators.constant(given.data + values).output(0))
        return
    added = operators.add(layer.output(0), operators.constant(values))
    for each in readers:
        each.replace_source_output(added.output(0))


def _weights(model: openvino.Model) -> dict[str, openvino.Node]:
    """The constants of layers, by the names of the operators that multiply by them."""
    layers = [node for node in model.get_ordered_ops() if node.get_type_name() in WEIGHTED]
    return {node.get_friendly_name(): weight for node in layers if (weight := constant_behind(node))}
