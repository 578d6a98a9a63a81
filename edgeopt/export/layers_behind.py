"""A program with layers behind it, such as the argmax of a mask."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from edgeopt.networks.capture import example_of, export_program, require_same_function
from edgeopt.networks.outputs import tensors
from edgeopt.types import ModelState


def with_layers_behind(state: ModelState, layers: nn.Module, names: tuple[str, ...]) -> ModelState:
    """The state with layers behind its program, which take its outputs and give those called `names`.

    Raises `FunctionChangedError` where its outputs are not those of both, one after the other.
    """
    plain = state.program.module(check_guards=False)
    example = example_of(state.program)
    program = export_program(_LayersBehind(plain, layers), example, state.batch_range)
    require_same_function(
        lambda images: layers(*tensors(plain(images))),
        program.module(check_guards=False),
        example,
        "putting layers behind the program",
    )
    return replace(state, model=program, output_names=names)


class _LayersBehind(nn.Module):
    def __init__(self, program: nn.Module, layers: nn.Module) -> None:
        super().__init__()
        self.program = program
        self.ending = layers

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What the layers give for the program's outputs."""
        outputs: Tensor | tuple[Tensor, ...] = self.ending(*tensors(self.program(images)))
        return outputs
