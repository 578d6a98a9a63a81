"""A program as coremltools takes it: of one image, its integer weights as integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from edgeopt.export.refusals import require_one_image
from edgeopt.networks.batch_norms import fold_batch_norms
from edgeopt.networks.bits import upstream
from edgeopt.networks.layers import layer_call
from edgeopt.plugins import ExportError, InputKind
from edgeopt_coreml.rewrites.integers import fold_integers, round_weights
from edgeopt_coreml.rewrites.planes import take_planes

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

    from edgeopt.plugins import ModelState


@dataclass(frozen=True, eq=False)
class Prepared:
    """A program of float32 (1, channels, height, width). Pixels enter as floats in that order, which is what Core ML
    makes of an image.
    """

    program: ExportedProgram

    @property
    def operators(self) -> list[Node]:
        """Its operators, in order; what takes a tuple apart is none."""
        return [node for node in self.program.graph.nodes if hasattr(node.target, "_schema")]

    @property
    def modules(self) -> dict[str, str]:
        """The module of each layer, by the name of the node that is its weight."""
        signature, modules = self.program.graph_signature, {}
        constants = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        for layer in filter(None, map(layer_call, self.operators)):
            names = [constants[each.name] for each in upstream(layer.weight) if each.name in constants]
            weights = [name for name in names if name.rpartition(".")[2].startswith("weight")]
            if weights:
                modules[layer.weight.name] = weights[0].rpartition(".")[0]
        return modules


def prepare(state: ModelState, *, is_half: bool = False, has_int8_weights: bool = False) -> Prepared:
    """The program of a state, which stays as it is; with `has_int8_weights` the weights of its layers are rounded.

    Raises `ExportError` for a program of several inputs, and with `is_half` where float16 does not hold a weight:
    coremltools would leave such a layer in float32, between layers that do not hold what it gives.
    """
    require_one_image(state.program, "Core ML")
    module = state.program.module(check_guards=False)
    module._forward_pre_hooks.clear()  # noqa: SLF001 - they compare sizes, and the batch becomes one
    fold_batch_norms(module)
    for name, values in module.named_parameters() if is_half else ():
        if values.abs().max() > torch.finfo(torch.float16).max:
            raise ExportError(f"{name} has values that are too large for float16", hint="leave this file in float32")
    if has_int8_weights:
        round_weights(module)
    fold_integers(module)
    if state.input_kind is InputKind.UINT8_NHWC:
        take_planes(module)
    with torch.no_grad():
        captured = torch.export.export(module, (torch.zeros(1, *state.input_shape),))
    return Prepared(captured.run_decompositions({}))
