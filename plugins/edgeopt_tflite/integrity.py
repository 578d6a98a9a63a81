"""Checks that a file is whole before native code reads it: LiteRT trusts its offsets, and crashes on wrong ones."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

_IDENTIFIER = b"TFL3"
_IDENTIFIER_AT = 4
_SMALLEST = 16


def require_whole(path: Path) -> None:
    """Reads every table of a model and checks that every constant lies inside the file.

    Raises `ValueError` when the file is cut off, or is no TFLite model.
    """
    try:
        if not path.stat().st_size:  # an empty file cannot be mapped
            raise ValueError(f"{path} is empty")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if len(content) < _SMALLEST or content[_IDENTIFIER_AT : _IDENTIFIER_AT + 4] != _IDENTIFIER:
                raise ValueError(f"{path} is not a TFLite model")
            _walk(content)
    except (struct.error, IndexError, TypeError, OverflowError, OSError) as error:
        raise ValueError(f"{path} is damaged, or not a TFLite model: {error}") from error


def _walk(content: mmap.mmap) -> None:
    size = len(content)
    model = schema.Model.GetRootAsModel(content, 0)
    codes = _count(model.OperatorCodesLength(), size)
    buffers = _count(model.BuffersLength(), size)
    for index in range(buffers):
        buffer = model.Buffers(index)
        _within(buffer, "Data", size)
        if buffer.Offset() + buffer.Size() > size:  # a constant behind the flatbuffer
            raise IndexError("a constant ends after the file")
    for index in range(codes):
        model.OperatorCodes(index).BuiltinCode()
    if not _count(model.SubgraphsLength(), size):
        raise IndexError("it has no graph")
    for index in range(model.SubgraphsLength()):
        _walk_graph(model.Subgraphs(index), size, codes, buffers)


def _walk_graph(graph: Any, size: int, codes: int, buffers: int) -> None:
    tensors = _count(graph.TensorsLength(), size)
    for index in range(tensors):
        tensor = graph.Tensors(index)
        _within(tensor, "Shape", size)
        if tensor.Buffer() >= buffers:
            raise IndexError("a tensor names a constant that is not there")
    for index in range(_count(graph.OperatorsLength(), size)):
        operator = graph.Operators(index)
        if operator.OpcodeIndex() >= codes:
            raise IndexError("an operator is of no kind")
        for side in ("Inputs", "Outputs"):
            _within(operator, side, size)
            values = [getattr(operator, side)(place) for place in range(getattr(operator, f"{side}Length")())]
            if any(value >= tensors for value in values):
                raise IndexError("an operator names a tensor that is not there")
    for side in ("Inputs", "Outputs"):
        _within(graph, side, size)


def _count(length: int, size: int) -> int:
    if length > size:
        raise IndexError("a list is longer than the file")
    return length


def _within(table: Any, field: str, size: int) -> None:
    """Reads the last element of a list, which raises where it lies outside of the file."""
    length = _count(getattr(table, f"{field}Length")(), size)
    if length:
        getattr(table, field)(length - 1)
