"""What Google's Edge TPU runs of a `.tflite` file.

Its compiler is a program for Debian on x86 that is no package of Python, so this is a table: that of "TensorFlow models
on the Edge TPU", https://coral.ai/docs/edgetpu/models-intro/#supported-operations, for runtime 14 and compiler 16, the
last that there are, with the conditions that stand there. What the compiler leaves out for reasons of its own, such as
a tensor that is too large for its memory, is in no table. Rows up to REDUCE_MIN were compared with a copy of the
table; the later ones that came with runtimes 13 and 14 were not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt.plugins import AcceleratorAnswer, AcceleratorRequest, AskedOperator, ExportError, Verdict
from edgeopt_tflite.graph import Graph

SOURCE = "Google's table of operators for runtime 14 (coral.ai/docs/edgetpu/models-intro)"
_INTEGERS = ("int8", "uint8")
_SOFTMAX_MOST = 16_000
_Z_MULTIPLE = 4
_LATER = "it comes after an operator that runs on the CPU, and the compiler maps one piece of a network alone"


@dataclass(frozen=True, eq=False)
class _Call:
    """An operator of a file with what its conditions look at."""

    graph: Graph
    operator: Any

    @property
    def options(self) -> Any:
        return self.operator.builtinOptions

    def shape(self, place: int) -> tuple[int, ...]:
        return self.graph.shape(int(self.operator.inputs[place]))

    def constant(self, place: int) -> list[int]:
        """The integers of an operand, empty where it is computed."""
        values = self.graph.constant(int(self.operator.inputs[place]))
        return [] if values is None else [int(each) for each in values]

    def axes(self, place: int = 1) -> set[int]:
        """The axes that an operand names, counted from the front."""
        rank = len(self.shape(0))
        return {axis % rank for axis in self.constant(place)} if rank else set()


Condition = Callable[[_Call], str]
"""Why an operator of a kind that the Edge TPU knows does not run there; empty where it does."""


def _unfused(call: _Call) -> str:
    return "it has a fused activation" if call.options.fusedActivationFunction else ""


def _evenly_dilated(call: _Call) -> str:
    return "" if call.options.dilationWFactor == call.options.dilationHFactor else "x and y are dilated differently"


def _zeros_beside_one(call: _Call) -> str:
    constants = [value for index in call.operator.inputs if (value := call.graph.constant(int(index))) is not None]
    if constants and (len(call.operator.inputs) != 2 or any(np.any(each) for each in constants)):
        return "a constant among its inputs must be one of two, and zero"
    return _unfused(call)


def _a_vector(call: _Call) -> str:
    if call.options.weightsFormat:
        return "its weights are stored in another than the default format"
    shape = call.graph.shape(int(call.operator.outputs[0]))
    return "" if int(np.prod(shape)) == shape[-1] else f"its output {list(shape)} has more than one dimension"


def _not_over_images(call: _Call) -> str:
    return "it reduces over the batch" if 0 in call.axes() and len(call.shape(0)) > 1 else ""


def _mean(call: _Call) -> str:
    shape = call.shape(0)
    if len(shape) - 1 in call.axes() and shape[-1] % _Z_MULTIPLE:
        return f"it reduces over {shape[-1]} channels, which is no multiple of {_Z_MULTIPLE}"
    return _not_over_images(call)


def _pad(call: _Call) -> str:
    return "it pads the batch" if any(call.constant(1)[:2]) and len(call.shape(0)) > 1 else ""


def _pack(call: _Call) -> str:
    return "it packs into the batch" if call.options.axis == 0 else ""


def _split(call: _Call) -> str:
    rank = len(call.shape(1))
    return "it splits the batch" if call.constant(0) and call.constant(0)[0] % rank == 0 else ""


def _prelu(call: _Call) -> str:
    return "" if all(size == 1 for size in call.shape(1)[:-1]) else "its slopes have more than one dimension"


def _softmax(call: _Call) -> str:
    shape = call.shape(0)
    if int(np.prod(shape)) != shape[-1]:
        return f"its input {list(shape)} has more than one dimension"
    return f"it has more than {_SOFTMAX_MOST:,} elements" if shape[-1] > _SOFTMAX_MOST else ""


def _strided(call: _Call) -> str:
    plain = set(call.constant(3)) <= {1} and not call.options.ellipsisMask and not call.options.newAxisMask
    return "" if plain else "it has strides, an ellipsis or a new axis"


def _always(_call: _Call) -> str:
    return ""


TABLE: Mapping[str, Condition] = {
    "ADD": _always,
    "AVERAGE_POOL_2D": _unfused,
    "CONCATENATION": _zeros_beside_one,
    "CONV_2D": _evenly_dilated,
    "DEPTHWISE_CONV_2D": _evenly_dilated,
    "EXPAND_DIMS": _always,
    "FULLY_CONNECTED": _a_vector,
    "L2_NORMALIZATION": _always,
    "LOGISTIC": _always,
    "MAXIMUM": _always,
    "MAX_POOL_2D": _unfused,
    "MEAN": _mean,
    "MINIMUM": _always,
    "MUL": _always,
    "PACK": _pack,
    "PAD": _pad,
    "PRELU": _prelu,
    "QUANTIZE": _always,
    "REDUCE_MAX": _not_over_images,
    "REDUCE_MIN": _not_over_images,
    "RELU": _always,
    "RELU6": _always,
    "RELU_N1_TO_1": _always,
    "RESHAPE": _always,
    "RESIZE_BILINEAR": _always,
    "RESIZE_NEAREST_NEIGHBOR": _always,
    "RSQRT": _always,
    "SLICE": _always,
    "SOFTMAX": _softmax,
    "SPACE_TO_DEPTH": _always,
    "SPLIT": _split,
    "SQUARED_DIFFERENCE": _always,
    "SQUEEZE": _always,
    "STRIDED_SLICE": _strided,
    "SUB": _always,
    "SUM": _not_over_images,
    "TANH": _always,
    "TRANSPOSE": _always,
    "TRANSPOSE_CONV": _always,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _always,
}


def ask(request: AcceleratorRequest) -> AcceleratorAnswer:
    """Reads the file that would be compiled.

    Raises `ExportError` for one in which nothing is an integer, which the compiler refuses.
    """
    return judge(Graph(request.write().read_bytes()))


def judge(graph: Graph) -> AcceleratorAnswer:
    """A verdict on each operator of a file; the compiler maps the first piece that it can, and nothing behind it."""
    if not any(graph.dtype(int(tensor)) in _INTEGERS for each in graph.operators for tensor in each.outputs):
        raise ExportError(
            "the Edge TPU's compiler takes int8 files alone, and this one computes in float",
            hint='add a pass such as "ptq"',
        )
    mapped: set[int] = set()  # tensors that the Edge TPU computes
    behind: set[int] = set()  # tensors that need one of these and an operator on the CPU
    asked = []
    for operator in graph.operators:
        read = {int(tensor) for tensor in operator.inputs}
        made = {int(tensor) for tensor in operator.outputs}
        reason = _reason(graph, operator) or (_LATER if read & behind else "")
        if not reason:
            mapped |= made
        elif read & (mapped | behind):
            behind |= made
        name = graph.name(min(made))
        verdict = Verdict.FALLS_BACK if reason else Verdict.RUNS
        asked.append(AskedOperator(graph.kind(operator), verdict, reason, name))
    return AcceleratorAnswer(tuple(asked), int(bool(mapped)), SOURCE)


def _reason(graph: Graph, operator: Any) -> str:
    condition = TABLE.get(graph.kind(operator))
    if condition is None:
        return "the Edge TPU has no such operator"
    tensors = [int(tensor) for tensor in (*operator.inputs[:1], *operator.outputs)]
    if others := {graph.dtype(tensor) for tensor in tensors} - {*_INTEGERS, "int32"}:
        return f"it works on {', '.join(sorted(others))}"
    shapes = [graph.shape(tensor) for tensor in tensors]
    if wide := [shape for shape in shapes if any(size > 1 for size in shape[:-3])]:
        return f"only the last three sizes of {list(wide[0])} may be larger than 1"
    return condition(_Call(graph, operator))
