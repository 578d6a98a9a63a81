"""What each operator of a file takes of RAM and of flash, and the names by which a reader knows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeopt.plugins import Footprint
from edgeopt_tflite.graph import Graph
from edgeopt_tflm.interpreter import Arena, bytes_of


@dataclass(frozen=True)
class OperatorCost:
    """An operator; `ram` are the bytes of what it reads and writes at once, `flash` those of its constants."""

    name: str
    ram: int
    flash: int


def operator_costs(graph: Graph, layers: Sequence[str] = ()) -> tuple[OperatorCost, ...]:
    """The costs of each operator, in the order of execution.

    `layers` are the modules of the program's layers, in their order: they name the operators where there are as many
    layers in the file; others are named by their kind and place.
    """
    weighted = [id(layer.operator) for layer in graph.layers()]
    names = dict(zip(weighted, layers, strict=True)) if len(weighted) == len(layers) else {}
    return tuple(_cost(graph, number, each, names) for number, each in enumerate(graph.operators))


def _cost(graph: Graph, number: int, operator: Any, names: Mapping[int, str]) -> OperatorCost:
    tensors = {int(tensor) for side in (operator.inputs, operator.outputs) for tensor in side if tensor >= 0}
    constants = {tensor for tensor in tensors if graph.constant(tensor) is not None}
    kind = graph.kind(operator)
    name = f"{names[id(operator)]} ({kind})" if id(operator) in names else f"operator {number} ({kind})"
    return OperatorCost(
        name,
        sum(bytes_of(graph, tensor) for tensor in tensors - constants),
        sum(bytes_of(graph, tensor) for tensor in constants),
    )


def footprint(content: bytes, arena: Arena, graph: Graph, layers: Sequence[str]) -> Footprint:
    """What a file takes: the arena as the interpreter counted it, and the bytes of the file itself."""
    costs = operator_costs(graph, layers)
    ram, flash = max(costs, key=lambda cost: cost.ram), max(costs, key=lambda cost: cost.flash)
    return Footprint(
        ram_bytes=arena.total,
        flash_bytes=len(content),
        ram_parts={"head": arena.head, "tail": arena.tail},
        most_ram=(ram.name, ram.ram),
        most_flash=(flash.name, flash.flash),
        operators=dict(sorted(graph.kinds().items())),
    )


def bare(graph: Graph) -> bytes:
    """The file of a graph without what no microcontroller reads, changed in place: metadata, signatures, names of inner
    tensors, which are a tenth of a small file.
    """
    outer = [*map(int, graph.main.inputs), *map(int, graph.main.outputs)]
    given, *returned = map(graph.name, outer)
    graph.model.metadata, graph.model.signatureDefs = [], None
    graph.compact(given, returned)
    outer = [*map(int, graph.main.inputs), *map(int, graph.main.outputs)]
    for index, tensor in enumerate(graph.main.tensors):
        if index not in outer:
            tensor.name = None
    return graph.to_bytes()
