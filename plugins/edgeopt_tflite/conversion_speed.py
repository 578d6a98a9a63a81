"""A faster conversion by litert-torch, to the same file.

Each context manager changes a library within the block alone, and does nothing where the library has no such attribute:
another version converts more slowly then, to the same file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from litert_torch._convert import fx_passes
from litert_torch._convert.fx_passes import build_aten_composite_pass
from litert_torch.backend.lowerings import _basic, registry
from litert_torch.fx_infra import ExportedProgramPassResult
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Node

aten = torch.ops.aten


@contextmanager
def quick_conversion() -> Iterator[None]:
    """Within, litert-torch makes the same file in less time."""
    with _plain_lowerings(), _one_walk_less():
        yield


@contextmanager
def named_operators() -> Iterator[None]:
    """Within, errors of torch name the line of Python that made a node, and with it the operator that a model calls.

    `edgeopt.networks.tracing` leaves these notes out, which take a tenth of each walk.
    """
    with patch.object(torch.fx.config, "do_not_emit_stack_traces", False):
        yield


@contextmanager
def _plain_lowerings() -> Iterator[None]:
    """Within, transposed and copied values are lowered by one operator of StableHLO, without JAX.

    litert-torch has such lowerings, and registers others behind them that trace a JAX function for each shape: two
    fifths of those that a MobileNetV3 needs, a tenth of its conversion.
    """
    by_one = {
        aten.permute.default: getattr(_basic, "_aten_permute", None),
        aten.clone.default: getattr(_basic, "_aten_clone", None),
    }
    there = {operator: lowering for operator, lowering in by_one.items() if lowering is not None}
    with patch.dict(registry.global_registry.registered_ops, there):
        yield


_OF_LAYOUTS = {"tensor_to_nchw", "tensor_to_nhwc", "_aten_convolution_rewriter.<locals>.conv_nhwc"}
"""Functions that litert-torch puts into a graph to bring convolutions to NHWC."""

_WITHOUT_SIZES = {aten.hardswish.default, aten.gelu.default}
"""Operators that become composites of TFLite's whatever the sizes of their tensors."""


@contextmanager
def _one_walk_less() -> Iterator[None]:
    """Within, a graph whose convolutions were brought to NHWC is not walked through for that alone.

    litert-torch traces it to take apart the functions which it put in there, and traces it again for its next step,
    which takes them apart as well. Passes between the two look at sizes, of operators that must not be there then.
    """
    canonical: Any = getattr(fx_passes, "CanonicalizePass", None)
    composites: Any = getattr(build_aten_composite_pass, "_composite_builders", None)
    if canonical is None or composites is None:
        yield
        return
    walk = canonical.call
    looked_at = {aten.unsqueeze.default, *composites} - _WITHOUT_SIZES

    def call(self: Any, program: ExportedProgram) -> Any:
        if any(_needs_walk(node, looked_at) for node in program.graph.nodes):
            return walk(self, program)
        return ExportedProgramPassResult(program, False)

    with patch.object(canonical, "call", call):
        yield


def _needs_walk(node: Node, looked_at: set[Any]) -> bool:
    if node.op != "call_function":
        return False
    if isinstance(node.target, OpOverload):
        return node.target in looked_at
    return getattr(node.target, "__qualname__", "") not in _OF_LAYOUTS
