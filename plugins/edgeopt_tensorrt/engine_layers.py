"""What became int8 in an engine, read from the engine itself.

TensorRT's own inspector needs a GPU, and even its builder falls back to float without a word. The plan that TensorRT
for RTX writes holds its program as text: a line for each tensor with its type, and one for each operation with the
tensors that it reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from edgeopt_tensorrt.graph_check import GraphLayer

_TEXT = re.compile(rb"[\x20-\x7e]{16,}")
_TENSOR = re.compile(rb'(?:sub_)?tensor=\{.* name="([^"]+)".* type=(\w+) \}')
_OPERATION = re.compile(rb'\w+=\{ name="([^"]+)" output=\{[^}]*\} input=\{([^}]*)\}.* stream=')
_NAME = re.compile(rb'"([^"]+)"')
_COPY = re.compile(r"_U\d+$")  # TensorRT's own suffix for a layer that it made anew


@dataclass(frozen=True)
class EngineLayers:
    """The quantized layers of a graph by what an engine does with them; `unknown` ones were not found in its text."""

    int8: tuple[GraphLayer, ...]
    in_float: tuple[GraphLayer, ...]
    unknown: tuple[GraphLayer, ...]


def read_layers(plan: bytes, layers: Iterable[GraphLayer]) -> EngineLayers:
    """Looks up each of `layers` in a plan of TensorRT for RTX.

    A layer is int8 where the first two tensors of its operation, the activation and the weight, are int8. A plan for
    several kinds of GPU holds several programs, and there they must be int8 in each.
    """
    operands = _operand_types(plan)
    found: dict[bool | None, list[GraphLayer]] = {True: [], False: [], None: []}
    for layer in layers:
        types = operands.get(layer.node)
        found[None if types is None else types == {b"int8"}].append(layer)
    return EngineLayers(*(tuple(found[is_int8]) for is_int8 in (True, False, None)))


def _operand_types(plan: bytes) -> dict[str, set[bytes]]:
    """The types of what each operation reads first and second, by the name of its ONNX node."""
    types: dict[bytes, set[bytes]] = {}
    operations: list[tuple[str, list[bytes]]] = []
    for text in _TEXT.findall(plan):
        if tensor := _TENSOR.search(text):
            types.setdefault(tensor[1], set()).add(tensor[2])
        elif operation := _OPERATION.search(text):
            name = _COPY.sub("", operation[1].decode())
            operations.append((name, _NAME.findall(operation[2])[:2]))
    operands: dict[str, set[bytes]] = {}
    for name, inputs in operations:
        for each in inputs:
            operands.setdefault(name, set()).update(types.get(each, {b"unknown"}))
    return operands
