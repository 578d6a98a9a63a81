"""Measure what operators cost in ONNX Runtime on this machine, in float32 and in int8.

Run it as `python -m edgeopt_onnx.auto.measure FILE`: it writes the file that `costs = "FILE"` reads. Each operator
is measured beside convolutions of its own precision, so that the changes of memory layout that it causes count as its
own. A line through the smallest times of several sizes gives the nanoseconds of a call and of a unit of work.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeopt.files import write_aside
from edgeopt.plugins import versions_of
from edgeopt_onnx.auto.costs import Costs, Kind, OperatorCost
from edgeopt_onnx.auto.processor import Processor, this_processor
from edgeopt_onnx.session import open_session

_RUNS = 300
_WARNINGS = 2  # of ONNX Runtime's levels: whoever measures wants to read them
_OPSET = 20
SIZES = ((16, 56), (32, 28), (96, 28), (96, 14), (240, 14), (576, 7), (256, 4), (128, 2))  # channels, and edge, px
SMALL_SIZES = ((96, 4), (240, 2), (16, 14))  # for whom a call itself costs much: in a page it does
NARROW = ((16, 3, 112), (16, 3, 224), (32, 3, 224), (64, 7, 112), (64, 7, 224))  # outputs, kernel, edge of the image
FULLY_CONNECTED = ((256, 256), (512, 1000), (576, 1024), (1280, 1000), (2048, 1000))  # inputs and outputs


class Graph:
    """A chain of layers on one image, with quantizers between them where it is int8."""

    def __init__(self, channels: int, edge: int, *, int8: bool) -> None:
        self.int8 = int8
        self.channels, self.edge = channels, edge
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self.random = np.random.default_rng(0)
        self.shape = [1, channels, edge, edge]
        self.value = "input"
        if int8:
            self.quantize()

    def constant(self, array: np.ndarray) -> str:
        """Adds a constant; returns its name."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: object) -> None:
        """Adds a node that reads the last value, and then `inputs`."""
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.value, *inputs], [name], name=name, **attributes))
        self.value = name

    def quantize(self) -> None:
        """Adds quantizers of activations."""
        parameters = [self.constant(np.array(0.02, np.float32)), self.constant(np.array(128, np.uint8))]
        self.add("QuantizeLinear", *parameters)
        self.add("DequantizeLinear", *parameters)

    def weights(self, shape: tuple[int, ...], axis: int = 0) -> str:
        """Adds weights in the graph's precision; returns their name."""
        if not self.int8:
            return self.constant(self.random.standard_normal(shape).astype(np.float32) / 10)
        integers = self.constant(self.random.integers(-127, 128, shape, dtype=np.int8))
        scale = self.constant(np.full(shape[axis], 0.002, np.float32))
        zero = self.constant(np.zeros(shape[axis], np.int8))
        name = f"weights{len(self.nodes)}"
        self.nodes.append(helper.make_node("DequantizeLinear", [integers, scale, zero], [name], name=name, axis=axis))
        return name

    def convolution(self, outputs: int, kernel: int = 1, group: int = 1, stride: int = 1) -> int:
        """Adds one, and returns how many multiplications it makes."""
        shape = (outputs, self.channels // group, kernel, kernel)
        bias = self.constant(np.zeros(outputs, np.float32))
        self.add("Conv", self.weights(shape), bias, group=group, pads=[kernel // 2] * 4, strides=[stride] * 2)
        self.edge = -(-self.edge // stride)
        self.channels = outputs
        if self.int8:
            self.quantize()
        return int(np.prod(shape)) * self.edge**2

    def model(self) -> bytes:
        """The graph as an ONNX file of one input, `input`."""
        given = helper.make_tensor_value_info("input", TensorProto.FLOAT, self.shape)
        returned = helper.make_tensor_value_info(self.value, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "cost", [given], [returned], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9)
        content: bytes = model.SerializeToString()
        return content

    def times_us(self) -> dict[str, float]:
        """Smallest microseconds of each kernel, by operator."""
        with tempfile.TemporaryDirectory() as folder:
            session = open_session(
                self.model(),
                log_severity_level=_WARNINGS,
                enable_profiling=True,
                profile_file_prefix=str(Path(folder) / "profile"),
            )
            batch = self.random.standard_normal(self.shape).astype(np.float32)
            for _ in range(_RUNS):
                session.run(None, {"input": batch})
            events = json.loads(Path(session.end_profiling()).read_text())
        times: dict[tuple[str, str], float] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                key = (event["name"], event["args"]["op_name"])
                times[key] = min(times.get(key, np.inf), event["dur"])
        totals: dict[str, float] = {}
        for (_, operator), time in times.items():
            totals[operator] = totals.get(operator, 0) + time
        return totals


def _of_convolution(graph: Graph) -> float:
    times = graph.times_us()
    return times.get("Conv", 0.0) + times.get("QLinearConv", 0.0)


def _convolutions(kernel: int, *, depthwise: bool) -> Callable[[bool], Iterator[tuple[int, float]]]:
    def measured(int8: bool) -> Iterator[tuple[int, float]]:
        for channels, edge in SIZES:
            graph = Graph(channels, edge, int8=int8)
            work = graph.convolution(channels, kernel, channels if depthwise else 1)
            yield work, _of_convolution(graph)

    return measured


def _narrow(int8: bool) -> Iterator[tuple[int, float]]:
    for outputs, kernel, edge in NARROW:
        graph = Graph(3, edge, int8=int8)
        work = graph.convolution(outputs, kernel, stride=2)
        yield work, _of_convolution(graph)


def _fully_connected(int8: bool) -> Iterator[tuple[int, float]]:
    for inputs, outputs in FULLY_CONNECTED:
        graph = Graph(inputs, 1, int8=int8)
        fully_connected(graph, outputs)
        times = graph.times_us()
        yield inputs * outputs, times.get("Gemm", 0.0) + times.get("QGemm", 0.0)


Layers: TypeAlias = Callable[[Graph], None]


def _differences(with_it: Layers, without: Layers) -> Callable[[bool], Iterator[tuple[int, float]]]:
    """How much longer a graph takes with an operator than without it."""

    def measured(int8: bool) -> Iterator[tuple[int, float]]:
        for channels, edge in SIZES:
            both = []
            for layers in (with_it, without):
                graph = Graph(channels, edge, int8=int8)
                layers(graph)
                both.append(sum(graph.times_us().values()))
            yield channels * edge**2, max(both[0] - both[1], 0.0)

    return measured


def fully_connected(graph: Graph, outputs: int) -> None:
    """A fully connected layer of all that an image has."""
    graph.add("Flatten")
    if graph.int8:
        graph.quantize()
    bias = graph.constant(np.zeros(outputs, np.float32))
    graph.add("Gemm", graph.weights((outputs, graph.channels * graph.edge**2)), bias, transB=1)
    if graph.int8:
        graph.quantize()


def two(graph: Graph) -> None:
    """Two convolutions."""
    graph.convolution(graph.channels)
    graph.convolution(graph.channels)


def three(graph: Graph) -> None:
    """Three convolutions."""
    two(graph)
    graph.convolution(graph.channels)


def added(graph: Graph) -> None:
    """Three convolutions, of which the last one reads the sum of the others."""
    graph.convolution(graph.channels)
    left = graph.value
    graph.convolution(graph.channels)
    graph.add("Add", left)
    if graph.int8:
        graph.quantize()
    graph.convolution(graph.channels)


def pooled(graph: Graph) -> None:
    """Two convolutions, and the mean over the image."""
    graph.convolution(graph.channels)
    graph.convolution(graph.channels)
    graph.add(*(("GlobalAveragePool",) if graph.int8 else ("ReduceMean", graph.constant(np.array([2, 3])))))
    if graph.int8:
        graph.quantize()


def clip(graph: Graph) -> None:
    """A Relu or Clip."""
    if graph.int8:  # of integers, before they are dequantized
        low, high = (graph.constant(np.array(bound, np.uint8)) for bound in (128, 250))
        dequantize = graph.nodes.pop()
        graph.value = dequantize.input[0]
        graph.add("Clip", low, high)
        graph.add("DequantizeLinear", *dequantize.input[1:])
    else:
        graph.add("Relu")


def clipped(graph: Graph) -> None:
    """Two convolutions with a Relu or Clip between them."""
    graph.convolution(graph.channels)
    clip(graph)
    graph.convolution(graph.channels)


def _conversions() -> Iterator[tuple[int, float]]:
    """The work and the time of a conversion: half of going to float and back, the changes of memory layout included."""
    for channels, edge in SIZES:
        graph = Graph(channels, edge, int8=False)
        graph.convolution(channels)
        graph.int8 = True
        graph.quantize()
        graph.convolution(channels)
        graph.int8 = False
        graph.convolution(channels)
        times = graph.times_us()
        for fused in ("Conv", "QLinearConv"):
            del times[fused]  # a KeyError would mean that nothing was fused
        yield channels * edge**2, sum(times.values()) / 2


def line(points: Iterable[tuple[int, float]]) -> OperatorCost:
    """Call and unit in nanoseconds, from (work, microseconds); small and large sizes weigh alike."""
    work, times = np.array(list(points)).T
    rows = np.stack([np.ones_like(work), work], axis=1) / np.maximum(times, 1.0)[:, None]
    (call, unit), *_ = np.linalg.lstsq(rows, times / np.maximum(times, 1.0), rcond=None)
    if call < 0:
        call, unit = 0.0, float(np.median(times / work))
    return OperatorCost(round(float(call) * 1000), round(max(float(unit), 0.0) * 1000, 4))


def measured(processor: Processor) -> Costs:
    """Cost in float32 and in int8 of each kind of operator on this machine, whose processor is `processor`."""
    pairs: dict[Kind, Callable[[bool], Iterator[tuple[int, float]]]] = {
        "pointwise": _convolutions(1, depthwise=False),
        "dense": _convolutions(3, depthwise=False),
        "depthwise": _convolutions(3, depthwise=True),
        "narrow": _narrow,
        "fully-connected": _fully_connected,
        "binary": _differences(added, three),
        "clip": _differences(clipped, two),
        "pool": _differences(pooled, two),
    }
    table = {kind: (line(points(False)), line(points(True))) for kind, points in pairs.items()}
    conversion = line(_conversions())
    runtime = f"onnxruntime {versions_of(['onnxruntime'])['onnxruntime']}"
    kinds = {**table, "conversion": (conversion, conversion)}
    return Costs(processor.architecture, processor.model, runtime, kinds)


def main(arguments: list[str]) -> int:
    """Measures, and writes the file that is named; what a wrong call returns is its exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m edgeopt_onnx.auto.measure FILE", file=sys.stderr)  # noqa: T201 - a command
        return 2
    write_aside(Path(arguments[0]), measured(this_processor()).to_toml())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
