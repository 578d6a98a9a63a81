"""Measure what operators cost in ONNX Runtime Web, in float32 and in int8, in the browser of this machine.

Run it as `python -m edgeopt_web.measure FILE`: it writes the file that `costs = "FILE"` of the exporter `onnx-web`
reads. A page has no times of single operators, so each cost is a difference: how much longer a graph takes with the
operator than without it, each graph by its fastest call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np

from edgeopt.files import write_aside
from edgeopt_onnx.auto.costs import Costs, Kind
from edgeopt_onnx.auto.measure import SIZES, Graph, added, clipped, line, pooled, three, two
from edgeopt_onnx.auto.processor import this_processor
from edgeopt_web.browser import Browser, require_browser
from edgeopt_web.local_server import LocalServer
from edgeopt_web.packages import ARCHITECTURE, ONNXRUNTIME_WEB
from edgeopt_web.runtime import onnx_web

_NARROW = ((16, 3, 112), (16, 3, 224), (32, 3, 224), (64, 7, 112))  # outputs, kernel, and edge of the image
_FULL = ((256, 256), (512, 1000), (576, 1024), (1280, 1000))  # inputs and outputs
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
        for channels, edge in SIZES:
            groups = channels if depthwise else 1

            def one(graph: Graph, groups: int = groups) -> None:
                graph.convolution(graph.channels, kernel, groups)

            def more(graph: Graph, groups: int = groups) -> None:
                for _ in range(3):
                    graph.convolution(graph.channels, kernel, groups)

            work = channels * (channels // groups) * kernel**2 * edge**2
            yield work, self.difference_us(channels, edge, more, one, int8=int8) / 2

    def narrow(self, *, int8: bool) -> Iterator[Point]:
        """Convolutions of images, against a graph that only takes the image in."""
        for outputs, kernel, edge in _NARROW:

            def layers(graph: Graph, outputs: int = outputs, kernel: int = kernel) -> None:
                graph.convolution(outputs, kernel, stride=2)

            work = outputs * 3 * kernel**2 * (edge // 2) ** 2
            yield work, self.difference_us(3, edge, layers, _nothing, int8=int8)

    def fully_connected(self, *, int8: bool) -> Iterator[Point]:
        """Fully connected layers, against a graph that only takes their input in."""
        for inputs, outputs in _FULL:

            def layers(graph: Graph, inputs: int = inputs, outputs: int = outputs) -> None:
                graph.add("Flatten")
                if graph.int8:
                    graph.quantize()
                bias = graph.constant(np.zeros(outputs, np.float32))
                graph.add("Gemm", graph.weights((outputs, inputs)), bias, transB=1)
                if graph.int8:
                    graph.quantize()

            yield inputs * outputs, self.difference_us(inputs, 1, layers, _nothing, int8=int8)

    def differences(self, with_it: Layers, without: Layers, *, int8: bool) -> Iterator[Point]:
        """Operators between convolutions."""
        for channels, edge in SIZES:
            yield channels * edge**2, self.difference_us(channels, edge, with_it, without, int8=int8)

    def conversions(self) -> Iterator[Point]:
        """One way of a conversion: half of going to integers and back between two convolutions in float."""
        for channels, edge in SIZES:
            yield channels * edge**2, self.difference_us(channels, edge, _there_and_back, two, int8=False) / 2


def _nothing(graph: Graph) -> None:
    """A graph must have a node: in int8 it has its quantizers."""
    if not graph.int8:
        graph.add("Identity")


def _there_and_back(graph: Graph) -> None:
    graph.convolution(graph.channels)
    graph.quantize()
    graph.convolution(graph.channels)


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
            "binary": lambda int8: page.differences(added, three, int8=int8),
            "clip": lambda int8: page.differences(clipped, two, int8=int8),
            "pool": lambda int8: page.differences(pooled, two, int8=int8),
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
