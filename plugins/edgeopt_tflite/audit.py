"""What a converted file really is, counted in the file and held against its program.

Two files must never leave here: one with fake quantization spelled out in float operators, which looks converted and is
seventy times slower, and one with integers that nobody asked for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch.export import ExportedProgram

from edgeopt.networks.bits import layer_bits
from edgeopt.networks.layers import operator_name
from edgeopt.plugins import ExportError, NothingChangedError
from edgeopt_tflite.graph import Graph

_RECURRENT = ("aten.gru", "aten.lstm", "aten.rnn")
#: How rounding to a grid looks where a converter spelled it out.
_SPELLED_OUT = ("ROUND", "FAKE_QUANT")
_BUG = "this is a bug in edgeopt or in litert-torch: please report the model and the recipe"


@dataclass(frozen=True)
class FileLayerCounts:
    """Convolution and linear layers, by the types of their input and weight."""

    int8: int
    """Both are int8, or the weight has four bits, or the input sixteen."""
    weights: int
    """The weight alone is int8 or float16; the runtime computes in float, or takes the input's range by itself."""
    float32: int

    @property
    def layers(self) -> int:
        """All of them."""
        return self.int8 + self.weights + self.float32


def layers_of_program(program: ExportedProgram) -> FileLayerCounts:
    """Counts the layers of a program; a quantized one has quantize and dequantize nodes before input and weight."""
    kinds = Counter(
        (layer.activations is not None, layer.weights is not None) for layer in layer_bits(program)
    )  # of each whether input and weight are integers
    return FileLayerCounts(kinds[True, True], kinds[False, True], kinds[True, False] + kinds[False, False])


def layers_of_file(graph: Graph) -> FileLayerCounts:
    """Counts the layers of a file."""
    int8 = weights = floats = 0
    for layer in graph.layers():
        if layer.value in ("int8", "int16") and layer.weight in ("int8", "int4"):
            int8 += 1
        elif layer.weight in ("int8", "float16"):
            weights += 1
        else:
            floats += 1
    return FileLayerCounts(int8, weights, floats)


def require_int8(program: ExportedProgram, graph: Graph) -> FileLayerCounts:
    """Counts the layers of the file of an int8 program.

    Raises `NothingChangedError` when a layer is int8 in the program and not in the file, `ExportError` when rounding is
    spelled out in float operators, and for layers that the converter cannot make int8.
    """
    wanted, found = layers_of_program(program), layers_of_file(graph)
    _refuse_spelled_out(program, graph)
    if transposed := _transposed_in_float(program, graph):
        raise ExportError(
            f"litert-torch has no int8 transposed convolution, and would leave {', '.join(transposed)} in float",
            hint=f"ask the pass for that: layer_bits = {{ {transposed[0]!r} = 'float' }}",
        )
    # A grouped convolution may become several, so the file may have more layers than the program.
    if found.int8 < wanted.int8 or (wanted.layers == wanted.int8 and found.layers > found.int8):
        if found.int8 >= wanted.int8 and (recurrent := _recurrent(program)):
            raise ExportError(
                f"litert-torch writes {', '.join(recurrent)} out as many float layers, "
                "which cannot be told from layers that should be int8",
                hint="use another runtime for recurrent layers, or a file in float",
            )
        raise NothingChangedError(
            f"{wanted.int8} of {wanted.layers} layers of the program are int8, "
            f"and {found.int8} of {found.layers} of the file",
            hint=_BUG,
        )
    if found.float32 < wanted.float32:
        raise ExportError(
            f"{wanted.float32} layers of the program are float, and {found.float32} of the file", hint=_BUG
        )
    if not wanted.int8:
        raise NothingChangedError("the program is said to be int8, and no layer of it is")
    return found


def require_float(program: ExportedProgram, graph: Graph) -> FileLayerCounts:
    """Counts the layers of the file of a float program; raises `ExportError` when it holds quantized numbers."""
    _refuse_spelled_out(program, graph)
    kinds = sorted({kind for kind in graph.kinds() if kind in ("QUANTIZE", "DEQUANTIZE")})
    int8 = sum(graph.dtype(index) == "int8" for index in range(len(graph.main.tensors)))
    if kinds or int8:
        raise ExportError(
            f"the program is float, and its file has {int8} int8 tensors and {kinds or 'no'} operators", hint=_BUG
        )
    return layers_of_file(graph)


def require_converted(before: FileLayerCounts, graph: Graph, precision: str) -> FileLayerCounts:
    """Counts the layers after a conversion of the file; raises `NothingChangedError` when it reached none."""
    found = layers_of_file(graph)
    if not found.weights or found.layers != before.layers:
        raise NothingChangedError(
            f"precision {precision!r} changed {found.weights} of {before.layers} layers",
            hint='use precision = "program"',
        )
    return found


def is_quantized(program: ExportedProgram) -> bool:
    """Whether a program has quantize nodes."""
    return any(operator_name(node).startswith("quantized_decomposed.quantize") for node in program.graph.nodes)


def _recurrent(program: ExportedProgram) -> list[str]:
    """The operators of a program that are recurrent layers."""
    return sorted({name for node in program.graph.nodes if (name := operator_name(node)).startswith(_RECURRENT)})


def _transposed_in_float(program: ExportedProgram, graph: Graph) -> list[str]:
    """The program's int8 transposed convolutions, where the file has any in float that the program has not."""
    transposed = [layer for layer in layer_bits(program) if layer.is_transposed]
    floats = sum(
        graph.kind(operator) == "TRANSPOSE_CONV" and graph.dtype(int(operator.inputs[1])) == "float32"
        for operator in graph.operators
    )
    quantized = [layer.name for layer in transposed if layer.weights is not None]
    return quantized if floats > len(transposed) - len(quantized) else []


def _refuse_spelled_out(program: ExportedProgram, graph: Graph) -> None:
    rounds = sum(operator_name(node).startswith(("aten.round", "aten.fake_quantize")) for node in program.graph.nodes)
    found = [kind for kind in graph.kinds().elements() if kind in _SPELLED_OUT]
    if len(found) > rounds:
        raise ExportError(
            f"the file quantizes in float arithmetic: it has {len(found)} operators {' and '.join(sorted(set(found)))}",
            hint=_BUG,
        )
