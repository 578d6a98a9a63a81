"""Measure what operators cost in ONNX Runtime Web, in float32 and in int8, in the browser of this machine.

Run it as `python -m edgeopt_web.measure FILE`: it writes the file that `costs = "FILE"` of the exporter `onnx-web`
reads. A page has no times of single operators, so each cost is a difference: how much longer a graph takes with some
of the operator than without them, each graph by its fastest call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from edgeopt.files import write_aside
from edgeopt_onnx.auto.costs import Costs, Kind
from edgeopt_onnx.auto.measure import (
    FULLY_CONNECTED,
    NARROW,
    SIZES,
    SMALL_SIZES,
    Graph,
    clip,
    fully_connected,
    line,
    pooled,
    two,
)
from edgeopt_onnx.auto.processor import this_processor
from edgeopt_web.browser import Browser, require_browser
from edgeopt_web.local_server import LocalServer
from edgeopt_web.packages import ARCHITECTURE, ONNXRUNTIME_WEB
from edgeopt_web.runtime import onnx_web

_ALL_SIZES = (*SIZES, *SMALL_SIZES)
_CHAIN = 6  # operators that are timed at once
_START = "import('/runtime/onnx_web.js').then(async (runtime) => { window.runtime = runtime; await runtime.start(1); })"
_FASTEST_MS = """(async () => {
  const file = await runtime.open(await (await fetch("/input")).arrayBuffer());
  const values = new Float32Array(%d).map((_, index) => Math.sin(index));
  let fastest = Infinity;
  const until = performance.now() + 150; // by then the browser has compiled what is called often
  for (let call = 0; call < 20 || performance.now() < until; call += 1) {
    const start = performance.now();
    await file.run(values, [%s]);
    fastest = Math.min(fastest, performance.now() - start);
  }
  await file.close();
  return fastest;
})()"""

Layers: TypeAlias = Callable[[Graph], object]
Point: TypeAlias = tuple[int, float]
"""The work of an operator, see `auto.costs`, and how many microseconds it takes."""


class _Page:
    """A page in which graphs are timed."""

    def __init__(self, server: LocalServer, browser: Browser) -> None:
        self._server, self._browser = server, browser
        browser.go(server.address)
        browser.evaluate(_START)

    def time_us(self, channels: int, edge: int, layers: Layers, *, int8: bool) -> float:
        """Microseconds of the fastest call of a graph with these layers on an image."""
        graph = Graph(channels, edge, int8=int8)
        elements = int(np.prod(graph.shape))
        shape = ", ".join(map(str, graph.shape))
        layers(graph)
        self._server.given = graph.model()
        return 1e3 * float(self._browser.evaluate(_FASTEST_MS % (elements, shape)))

    def difference_us(self, channels: int, edge: int, with_it: Layers, without: Layers, *, int8: bool) -> float:
        """How much longer a graph takes with an operator than without it."""
        more, fewer = (self.time_us(channels, edge, layers, int8=int8) for layers in (with_it, without))
        return max(more - fewer, 0.0)

    def convolutions(self, kernel: int, *, depthwise: bool, int8: bool) -> Iterator[Point]:
        """Convolutions that give as many channels as they take."""
        for channels, edge in _ALL_SIZES:
            groups = channels if depthwise else 1

            def one(graph: Graph, groups: int = groups) -> None:
                graph.convolution(graph.channels, kernel, groups)

            work = channels * (channels // groups) * kernel**2 * edge**2
            yield work, self.difference_us(channels, edge, _times(one, 1 + _CHAIN), one, int8=int8) / _CHAIN

    def narrow(self, *, int8: bool) -> Iterator[Point]:
        """Convolutions of images, against a graph that only takes the image in."""
        for outputs, kernel, edge in NARROW[:-1]:  # the largest takes a page long

            def layers(graph: Graph, outputs: int = outputs, kernel: int = kernel) -> None:
                graph.convolution(outputs, kernel, stride=2)

            work = outputs * 3 * kernel**2 * (edge // 2) ** 2
            yield work, self.difference_us(3, edge, layers, _nothing, int8=int8)

    def fully_connected(self, *, int8: bool) -> Iterator[Point]:
        """Fully connected layers, against a graph that only takes their input in."""
        for inputs, outputs in FULLY_CONNECTED[:-1]:
            layer = partial(fully_connected, outputs=outputs)
            yield inputs * outputs, self.difference_us(inputs, 1, layer, _nothing, int8=int8)

    def after_convolutions(self, operator: Layers, *, int8: bool) -> Iterator[Point]:
        """Operators after each of several convolutions, against the convolutions."""
        for channels, edge in _ALL_SIZES:

            def both(graph: Graph) -> None:
                _convolution(graph)
                operator(graph)

            chains = (_times(layers, _CHAIN) for layers in (both, _convolution))
            yield channels * edge**2, self.difference_us(channels, edge, *chains, int8=int8) / _CHAIN

    def pools(self, *, int8: bool) -> Iterator[Point]:
        """The mean over an image, at the end of a graph."""
        for channels, edge in SIZES:
            yield channels * edge**2, self.difference_us(channels, edge, pooled, two, int8=int8)

    def conversions(self) -> Iterator[Point]:
        """One way of a conversion, changes of memory layout included: half of what an int8 convolution between floats
        takes beyond one between integers.
        """
        for channels, edge in _ALL_SIZES:
            several, one = (_times(_convolution, count) for count in (1 + _CHAIN, 1))
            integers = self.difference_us(channels, edge, several, one, int8=True)
            chains = (_times(layers, _CHAIN) for layers in (_integers_between, _two_convolutions))
            between = self.difference_us(channels, edge, *chains, int8=False)
            yield channels * edge**2, max(between - integers, 0.0) / (2 * _CHAIN)


def _times(layers: Layers, count: int) -> Layers:
    """The same layers one after the other."""

    def all_of_them(graph: Graph) -> None:
        for _ in range(count):
            layers(graph)

    return all_of_them


def _convolution(graph: Graph) -> None:
    graph.convolution(graph.channels)


def _two_convolutions(graph: Graph) -> None:
    """Of a single one between integers, ONNX Runtime would make one of integers."""
    _convolution(graph)
    _convolution(graph)


def _integers_between(graph: Graph) -> None:
    _two_convolutions(graph)
    graph.int8 = True
    graph.quantize()
    _convolution(graph)
    graph.int8 = False


def _sum(graph: Graph) -> None:
    """Adds what came before the last convolution; without one before it, the graph's input as it is quantized."""
    before = next(node.input[0] for node in reversed(graph.nodes) if node.op_type == "Conv")
    graph.add("Add", before)
    if graph.int8:
        graph.quantize()


def _nothing(graph: Graph) -> None:
    """A graph must have a node: in int8 it has its quantizers."""
    if not graph.int8:
        graph.add("Identity")


def measured() -> Costs:
    """Cost in float32 and in int8 of each kind of operator in the browser of this machine.

    Raises `ExportError` where there is no browser or the runtime cannot be had.
    """
    runtime = onnx_web()
    files: dict[str, Path | bytes] = {f"/runtime/{name}": content for name, content in runtime.files.items()}
    with LocalServer(files) as server, Browser.start(require_browser()) as browser:
        page = _Page(server, browser)
        kinds: dict[Kind, Callable[[bool], Iterator[Point]]] = {
            "pointwise": lambda int8: page.convolutions(1, depthwise=False, int8=int8),
            "dense": lambda int8: page.convolutions(3, depthwise=False, int8=int8),
            "depthwise": lambda int8: page.convolutions(3, depthwise=True, int8=int8),
            "narrow": lambda int8: page.narrow(int8=int8),
            "fully-connected": lambda int8: page.fully_connected(int8=int8),
            "binary": lambda int8: page.after_convolutions(_sum, int8=int8),
            "clip": lambda int8: page.after_convolutions(clip, int8=int8),
            "pool": lambda int8: page.pools(int8=int8),
        }
        table = {kind: (line(points(False)), line(points(True))) for kind, points in kinds.items()}
        conversion = line(page.conversions())
        version = browser.version()
    named = f"{this_processor().model}, {version}"
    return Costs(ARCHITECTURE, named, str(ONNXRUNTIME_WEB), {**table, "conversion": (conversion, conversion)})


def main(arguments: list[str]) -> int:
    """Measures, and writes the file that is named; what a wrong call returns is its exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m edgeopt_web.measure FILE", file=sys.stderr)  # noqa: T201 - a command
        return 2
    write_aside(Path(arguments[0]), measured().to_toml())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
