"""Bring a file to the operator set that was asked for."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import version_converter

from edgeopt.plugins import ExportError, FunctionChangedError, Problem, first_line
from edgeopt_onnx.session import open_session

LOWEST_CONVERTED = 18
"""The lowest operator set that PyTorch's converter reaches; below it, the file is converted down."""

_RELATIVE_TOLERANCE = 1e-5  # of the output's range


def lowered(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The same model in a lower operator set, checked to be so by running both.

    Raises `ExportError` naming the operator that the lower set cannot express, and `FunctionChangedError` when the
    outputs differ.
    """
    source = onnx.ModelProto()
    source.CopyFrom(model)
    for node in source.graph.node:
        # Its default, which the lower set does not know by name.
        kept = [each for each in node.attribute if each.name != "noop_with_empty_axes" or each.i]
        del node.attribute[:]
        node.attribute.extend(kept)
    try:
        converted: onnx.ModelProto = version_converter.convert_version(source, opset)
        onnx.checker.check_model(converted, full_check=True)
        before, after = _outputs(model), _outputs(converted)
    except Exception as error:  # onnx and onnxruntime raise many types; all mean that this cannot be said in that set
        raise ExportError(
            Problem(
                f"ONNX opset {opset} cannot express this model: {first_line(error)}",
                f"use opset {LOWEST_CONVERTED} or later",
                option="opset",
            )
        ) from error
    difference, span = float(np.abs(before - after).max()), max(float(np.ptp(before)), 1e-12)
    if not difference / span <= _RELATIVE_TOLERANCE:
        raise FunctionChangedError(
            f"converting to ONNX opset {opset} changed the outputs by {difference:.3g}, whose range is {span:.3g}",
            hint=f"use opset {LOWEST_CONVERTED} or later",
        )
    return converted


def _outputs(model: onnx.ModelProto) -> np.ndarray:
    session = open_session(model.SerializeToString())
    (given,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in given.shape]
    random = np.random.default_rng(0)
    batch = random.integers(0, 256, shape).astype(np.uint8)
    values = batch if given.type == "tensor(uint8)" else (batch / 64 - 2).astype(np.float32)
    outputs: np.ndarray = session.run(None, {given.name: values})[0]
    return outputs
