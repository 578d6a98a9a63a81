"""A program with one output for two classes, as behind a sigmoid, becomes one with their two logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from edgeopt.networks.capture import example_of, export_program

_SHAPE_ONLY = ("view", "reshape", "flatten", "squeeze", "unsqueeze", "alias", "clone")
_LINEAR = ("linear", "addmm", "mm", "matmul", "conv2d", "add")
_SMALLEST_PROBABILITY = 1e-7
_TRIED = 4  # batches of random images


class TwoLogits(nn.Module):
    """A network of one value an image, with two logits in its place; `gives` is "logit" or "probability"."""

    def __init__(self, network: nn.Module, gives: str) -> None:
        super().__init__()
        self.network, self.gives = network, gives

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, 2) of images (n, channels, height, width)."""
        value = self.network(images).reshape(-1, 1)
        if self.gives == "probability":
            inside = value.clamp(_SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
            value = inside.log() - (1 - inside).log()
        return torch.cat([value * 0, value], dim=1)


def with_two_logits(program: ExportedProgram, batch_range: tuple[int, int]) -> ExportedProgram:
    """The program of one value an image with the logits of two classes; a sigmoid at its end is taken off.

    Where its end does not show what the values are, those of some images do: probabilities lie between 0 and 1.
    """
    module = program.module(check_guards=False)
    assert isinstance(module, GraphModule)
    last, gives = _last(module), "logit"
    if last is not None and _name(last) == "sigmoid":
        last.replace_all_uses_with(last.all_input_nodes[0])
        module.graph.erase_node(last)
        module.recompile()
    elif last is None or _name(last) not in _LINEAR:
        gives = "probability" if _in_unit(module, program) else "logit"
    return export_program(TwoLogits(module, gives), example_of(program), batch_range)


def _in_unit(module: GraphModule, program: ExportedProgram) -> bool:
    """Whether the answers to some random images are all between 0 and 1."""
    example = example_of(program)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        values = [module(torch.randn(example.shape, generator=generator)) for _ in range(_TRIED)]
    return all(bool(((each >= 0) & (each <= 1)).all()) for each in values)


def _last(module: GraphModule) -> Node | None:
    """The node that gives the output's values, behind it those that change the shape alone; read by nothing else."""
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    node: Node
    (node,) = output.all_input_nodes
    while len(node.users) == 1 and node.all_input_nodes:
        if _name(node) not in _SHAPE_ONLY:
            return node
        node = node.all_input_nodes[0]
    return None


def _name(node: Node) -> str:
    """The operator's name without its namespace and overload."""
    return str(node.target).split(".")[1] if node.op == "call_function" and "." in str(node.target) else ""
