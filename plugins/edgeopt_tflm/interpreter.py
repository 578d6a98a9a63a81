"""A file opened in TensorFlow Lite Micro's own interpreter, and the memory that it takes there.

The interpreter tells of its arena, and why it refuses a file, on the standard error stream alone.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from tflite_micro import runtime

from edgeopt.plugins import first_line
from edgeopt_tflm.operators import unknown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt_tflite.graph import Graph

_USED = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
_SPARE = 1 << 20  # for what the runtime keeps of every tensor and operator
_SCRATCH = 16  # kernels ask for a few times the bytes of a tensor at most, as a transposed convolution's sums


@dataclass(frozen=True)
class Arena:
    """Bytes of the one block of RAM that a file takes: the head is reused from layer to layer, the tail stays."""

    total: int
    head: int
    tail: int


class MicroFile:
    """A model in the interpreter, called with one image at a time."""

    def __init__(self, content: bytes, graph: Graph) -> None:
        """Open a model; `graph` is the same, read.

        Raises `ValueError` for operators that the interpreter has not, and with its own words where it cannot open it.
        """
        if names := unknown(graph.kinds()):
            raise ValueError(f"TensorFlow Lite Micro has no operator {', '.join(names)}")
        with _native_errors() as said:
            try:
                self._interpreter = runtime.Interpreter.from_bytes(content, arena_size=_roomy(content, graph))
            except (RuntimeError, ValueError) as error:
                raise ValueError(f"{first_line(error)}: {_read(said)}") from error
        self._outputs = range(len(graph.main.outputs))

    def run(self, values: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """The outputs as the file has them, for an input of its own type and shape."""
        self._interpreter.set_input(values, 0)
        self._interpreter.invoke()
        return tuple(self._interpreter.get_output(index) for index in self._outputs)

    def arena(self) -> Arena:
        """What the file takes; to be asked after a call, before which kernels may not have had all of it."""
        with _native_errors() as said:
            self._interpreter.print_allocations()
            text = _read(said)
        used = {name: int(count) for name, count in _USED.findall(text)}
        return Arena(**used)


def bytes_of(graph: Graph, tensor: int) -> int:
    """The bytes of a tensor's values."""
    dtype = graph.dtype(tensor)
    return math.prod(graph.shape(tensor)) * np.dtype(dtype if dtype != "int4" else "int8").itemsize


def _roomy(content: bytes, graph: Graph) -> int:
    """An arena that no file outgrows: the interpreter ends the process where it is too small. Untouched, it is free."""
    tensors = range(len(graph.main.tensors))
    computed = sum(bytes_of(graph, tensor) for tensor in tensors if graph.constant(tensor) is None)
    return _SPARE + 2 * len(content) + _SCRATCH * computed


@contextmanager
def _native_errors() -> Iterator[IO[bytes]]:
    """Within, what native code writes to the standard error stream goes into the file that is given."""
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield file
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return " ".join(file.read().decode(errors="replace").split())
