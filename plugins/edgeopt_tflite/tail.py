"""The last operator of a file that a task has given, put behind a converted program."""

from __future__ import annotations

import numpy as np

from edgeopt.plugins import ExportError, Problem, TfliteTail
from edgeopt_tflite.graph import Graph


def add_tail(graph: Graph, tail: TfliteTail) -> None:
    """Puts a tail behind what a file returns, in place; its outputs are the file's then.

    Raises `ExportError` where the file returns anything but floats, which the operator takes.
    """
    returned = [int(each) for each in graph.main.outputs]
    if integers := sorted({graph.dtype(each) for each in returned} - {"float32"}):
        raise ExportError(
            Problem(
                f"{tail.operator} takes float32, and what comes before it is {' and '.join(integers)}",
                'use quantized_io = "float32"',
                option="quantized_io",
            )
        )
    constants = [graph.add_constant(np.asarray(each)) for each in tail.constants]
    outputs = [graph.add_tensor(shape, "float32") for shape in tail.shapes]
    graph.operators = [*graph.operators, graph.custom(tail.operator, tail.options, [*returned, *constants], outputs)]
    graph.set_outputs(outputs)
