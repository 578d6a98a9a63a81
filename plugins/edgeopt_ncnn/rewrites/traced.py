"""From a program to TorchScript, which pnnx reads: for one image, and without rounding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edgeopt.networks.capture import example_of
from edgeopt.networks.layers import operator_name
from edgeopt.plugins import InputKind
from edgeopt_ncnn.rewrites.rounding import Weighted, take_rounding_away

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule

    from edgeopt.plugins import ModelState


@dataclass(frozen=True, eq=False)
class Traced:
    """A program in float32 as `module`, an `example` that it takes, its layers, and how many roundings it had besides
    theirs.
    """

    module: GraphModule
    example: Tensor
    layers: list[Weighted]
    roundings_left_out: int

    def save(self, path: Path) -> None:
        """Writes TorchScript."""
        with torch.no_grad():
            traced: Any = torch.jit.trace(self.module, self.example, check_trace=False)  # type: ignore[no-untyped-call]
            torch.jit.save(traced, path)


def trace(state: ModelState) -> Traced:
    """The program of a state for one image of float32 (1, channels, height, width).

    Pixels enter as floats in that order, which is what ncnn's own `Mat.from_pixels` makes of bytes.

    Raises `ExportError` for a program with zero points.
    """
    model: Any = state.program.module(check_guards=False)
    model._forward_pre_hooks.clear()  # noqa: SLF001 - they compare sizes, which cannot be traced
    example = example_of(state.program)[:1]
    for node in list(model.graph.nodes):
        if operator_name(node).startswith("aten.sym_size") and node.args[1] == 0:
            node.replace_all_uses_with(1)
        elif operator_name(node).startswith("aten._assert_tensor_metadata"):  # of a type that pixels no longer have
            model.graph.erase_node(node)
    if state.input_kind is InputKind.UINT8_NHWC:
        example = example.permute(0, 3, 1, 2).float()
        _take_planes(model)
    layers, left_out = take_rounding_away(model)
    return Traced(model, example, layers, left_out)


def _take_planes(model: GraphModule) -> None:
    """Has a program that takes bytes with channels last take floats with channels first, in place."""
    (given,) = (node for node in model.graph.nodes if node.op == "placeholder")
    with model.graph.inserting_after(given):
        pixels = model.graph.call_function(torch.ops.aten.permute.default, (given, [0, 2, 3, 1]))
    given.replace_all_uses_with(pixels, delete_user_cb=lambda user: user is not pixels)
    model.recompile()
