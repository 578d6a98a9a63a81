"""What each operator of an ONNX file takes, by ONNX Runtime's own profiler.

The runtime rewrites a graph when it opens it, and names what it makes after a node or a value of the file. By that, and
the name of the weight, an operator is known as a layer of the network, in the float file and in the int8 one alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import onnx

from edgeopt.plugins import OperatorTime, OperatorTimesRequest
from edgeopt_onnx.files import read_model
from edgeopt_onnx.operators import LAYOUT, WEIGHTED
from edgeopt_onnx.session import open_session

_MADE = re.compile(r"(_token_\d+|_nchwc|_quant|_quantized)+$")
"""What the runtime puts behind the name of the node or the value that an operator of its own stands for."""
_LAYERS = ("Conv", "Gemm", "MatMul")
"""What the runtime's kinds of operators with weights have in their names, as `QLinearConv` and `FusedMatMul`."""
_TIME = "_kernel_time"
_MICROSECONDS = 1e3  # in a millisecond


def operator_times(request: OperatorTimesRequest) -> list[OperatorTime]:
    """The operators in the order in which they are called."""
    session = open_session(
        request.path,
        threads=request.threads,
        inter_op_num_threads=1,
        enable_profiling=True,
        profile_file_prefix=str(request.folder / "profile"),
    )
    name = session.get_inputs()[0].name
    for _ in range(request.warmup + request.runs):
        session.run(None, {name: request.batch})
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    layers = _Layers(read_model(request.path).graph)
    took: dict[tuple[str, str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_TIME):
            operator = event["args"]
            key = (str(operator.get("node_index", "")), event["name"].removesuffix(_TIME), operator["op_name"])
            took.setdefault(key, []).append(event["dur"])
    return [
        OperatorTime(name, kind, median(times[request.warmup :]) / _MICROSECONDS, layers.of(name, kind))
        for (_, name, kind), times in took.items()
        if len(times) > request.warmup
    ]


class _Layers:
    """The layers of a file's graph, by the nodes and values that lead to them."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._constants = {each.name for each in graph.initializer}
        self._by_node = {node.name: node for node in graph.node if node.name}
        self._producers = {output: node for node in graph.node for output in node.output}

    def of(self, operator: str, kind: str) -> str:
        """The layer that an operator of the runtime computes, "" where it is none."""
        if not any(each in kind for each in _LAYERS):
            return ""
        name = _MADE.sub("", operator)
        node = self._by_node.get(name) or self._producers.get(name)
        return next((layer for each in self._chain(node) if (layer := self._weight(each))), "")

    def _chain(self, node: onnx.NodeProto | None) -> Iterator[onnx.NodeProto]:
        """A node and those before it that have one input alone: activation functions lead to their layer."""
        while node is not None:
            yield node
            if node.op_type in WEIGHTED:
                return
            given = [name for name in node.input if name in self._producers and name not in self._constants]
            is_open = len(given) != 1 or node.op_type in ("QuantizeLinear", "DequantizeLinear")
            node = None if is_open else self._producers[given[0]]

    def _weight(self, node: onnx.NodeProto) -> str:
        """The module whose weight a node multiplies by, "" where it has none that is called so."""
        if node.op_type not in WEIGHTED:
            return ""
        name = node.input[1]
        while name not in self._constants and (before := self._producers.get(name)) is not None:
            if before.op_type not in ("DequantizeLinear", "Cast", "Mul", "QuantizeLinear", *LAYOUT):
                return ""
            name = before.input[0]
        module, is_called_so, _ = name.partition(".weight")
        return module if is_called_so else ""
