"""A faster lowering: XNNPACK skips the patterns that a program cannot contain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from executorch.backends.xnnpack.partition.graphs import bilinear_2d, sdpa
from torch.fx import Graph


@contextmanager
def patterns_of(graph: Graph) -> Iterator[None]:
    """Within, resizing and attention are looked for only where `graph` has operators of that kind.

    The lowering makes the patterns anew in each process by exporting small models, a fifth of the time of a small
    export.
    """
    names = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    with ExitStack() as stack:
        if hasattr(bilinear_2d, "get_graphs_dict") and not any("upsample" in name for name in names):
            stack.enter_context(patch.object(bilinear_2d, "get_graphs_dict", dict))
        if hasattr(sdpa, "get_graphs") and not any("softmax" in name or "attention" in name for name in names):
            stack.enter_context(patch.object(sdpa, "get_graphs", list))
        yield
