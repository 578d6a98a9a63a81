"""Weights of four bits or fewer take four bits in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.networks.bits import packed_layers
from edgeopt.plugins import NothingChangedError
from edgeopt_tflite.graph import Graph

if TYPE_CHECKING:
    from torch.export import ExportedProgram

#: For each operator whose kernels read integers of four bits, the first version that does.
_INT4_VERSIONS = {"CONV_2D": 7, "DEPTHWISE_CONV_2D": 7, "FULLY_CONNECTED": 4}
_DELEGATED = ("FULLY_CONNECTED",)
_LOW, _HIGH = -8, 7


@dataclass(frozen=True)
class Packed:
    """Layers whose weights are stored in four bits, and those of them that LiteRT's own kernels run for that reason."""

    layers: int = 0
    undelegated: int = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the reader of a report must know."""
        if not self.undelegated:
            return ()
        slow = (
            f"XNNPACK takes no convolution with weights of four bits: LiteRT's own kernels run {self.undelegated} of "
        )
        return (
            f'{slow}{self.layers} such layers, many times slower; int4_weights = "int8" is fast, in twice the bytes',
        )


def pack_weights(program: ExportedProgram, graph: Graph) -> Packed:
    """Stores the weights of each layer whose integers lie from -8 to 7 in four bits; exact, and in place.

    Raises `NothingChangedError` when the program has more such layers than the file.
    """
    wanted = len(packed_layers(program))
    if not wanted:
        return Packed()
    layers = undelegated = 0
    for operator in graph.operators:
        kind = graph.kind(operator)
        if kind not in _INT4_VERSIONS or graph.dtype(int(operator.inputs[0])) != "int8":
            continue
        weight = int(operator.inputs[1])
        integers = graph.constant(weight)
        if graph.dtype(weight) not in ("int8", "int4") or integers is None or not _fits(integers):
            continue
        if graph.dtype(weight) == "int8":
            graph.set_constant(weight, integers, "int4")
        graph.require_version(operator, _INT4_VERSIONS[kind])
        layers += 1
        undelegated += kind not in _DELEGATED
    if layers < wanted:
        raise NothingChangedError(
            f"{wanted} layers of the program have weights of four bits or fewer, and {layers} of the file",
            hint="this is a bug in edgeopt or in litert-torch: please report the model and the recipe",
        )
    return Packed(layers, undelegated)


def _fits(integers: np.ndarray) -> bool:
    return bool(((integers >= _LOW) & (integers <= _HIGH)).all())
