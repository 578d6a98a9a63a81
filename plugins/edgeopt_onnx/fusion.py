"""Count what ONNX Runtime makes of a quantized file, from the graph that it runs."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime

from edgeopt_onnx.session import open_session

# Integer operators of ONNX Runtime whose names do not begin with QLinear.
_INTEGER = {"QGemm", "QAttention", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
_CONVERTING = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


@dataclass(frozen=True)
class Fusion:
    """What ONNX Runtime runs in integers on this machine."""

    operators: dict[str, int]
    """Nodes of the optimized graph by operator: the integer ones, and those that convert from or to integers."""
    nodes: frozenset[str]
    """Names of the file's nodes that became integer operators."""

    def left(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of `names` that did not become integer operators."""
        return tuple(name for name in names if name not in self.nodes)


def fused(file: Path) -> Fusion:
    """Open a file in ONNX Runtime and count the integer operators of its optimized graph.

    The graph is optimized without changes of memory layout, which rename nodes and fuse nothing into integers.

    Raises whatever ONNX Runtime raises for a file that it cannot open.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        open_session(file, graph_optimization_level=level, optimized_model_filepath=str(path))
        optimized = onnx.load(path, load_external_data=False)
    integer = [node for node in optimized.graph.node if node.op_type.startswith("QLinear") or node.op_type in _INTEGER]
    converting = [node for node in optimized.graph.node if node.op_type in _CONVERTING]
    counts = Counter(node.op_type for node in (*integer, *converting))
    return Fusion(dict(sorted(counts.items())), frozenset(node.name for node in integer))
