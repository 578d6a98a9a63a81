"""What a program of somebody returns: its outputs by name, and the program with those that are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils import _pytree as pytree

from edgeopt.networks.capture import example_of, export_program
from edgeopt.plugins import CheckpointError, Problem, did_you_mean

SUPPRESSION = "nms"
"""The operator by which a detector drops boxes that overlap better ones."""
_INSTEAD = (
    "export the network up to its raw heads, without resizing, decoding and NMS, which an app does behind it: "
    "edgeopt_detection's split_detector(detector, height, width) gives that of torchvision's SSD, RetinaNet and FCOS"
)


@dataclass(frozen=True)
class Output:
    """One value that a program returns: `place` among all, its name, its shape as text, and how many classes it is of
    if it is a classifier's, 0 otherwise.
    """

    place: int
    name: str
    shape: str
    classes: int

    @property
    def is_of_a_classifier(self) -> bool:
        """Whether it can be logits (n, classes), or one value an image."""
        return self.classes > 0


def all_outputs(program: ExportedProgram) -> tuple[Output, ...]:
    """Every output in the program's order, by its key in what it returns, or as output_0, output_1, …"""
    nodes = {node.name: node for node in program.graph.nodes}
    returned = program.graph_signature.user_outputs
    values = [nodes[str(name)].meta["val"] for name in returned]
    tree = pytree.tree_unflatten(list(range(len(values))), program.call_spec.out_spec)
    paths = [_name(path) for path, _ in pytree.tree_leaves_with_path(tree)]
    return tuple(
        Output(place, name, described(value), _classes(value))
        for place, (name, value) in enumerate(zip(paths, values, strict=True))
    )


def require_no_suppression(path: Path, program: ExportedProgram) -> None:
    """Raises `CheckpointError` for a program that removes overlapping boxes itself."""
    if any(SUPPRESSION in str(node.target).split(".") for node in program.graph.nodes):
        message = f"{path}: removes overlapping boxes itself (NMS), and gives as many as it finds"
        raise CheckpointError(Problem(message, _INSTEAD))


def chosen_outputs(path: Path, program: ExportedProgram, images: Node, wanted: str | None) -> tuple[Output, ...]:
    """The outputs that are kept: all, or the one that is `wanted`.

    Raises `CheckpointError` where there is none of that name, and where one has no row for each image, or no fixed
    number of values in it.
    """
    outputs = all_outputs(program)
    names = [each.name for each in outputs]
    if wanted is not None:
        if wanted not in names:
            hint = did_you_mean(wanted, names) or f"it has {', '.join(names)}"
            raise CheckpointError(Problem(f"{path}: has no output {wanted!r}, as source.output says", hint))
        outputs = tuple(each for each in outputs if each.name == wanted)
    nodes = {node.name: node for node in program.graph.nodes}
    returned = [nodes[str(name)] for name in program.graph_signature.user_outputs]
    count = str(images.meta["val"].shape[0])
    for each in outputs:
        value = returned[each.place].meta["val"]
        is_known = isinstance(value, Tensor) and (value.dtype is torch.float32 or not value.is_floating_point())
        if not is_known or not value.dim() or str(value.shape[0]) != count:
            message = f"{path}: its output {each.name!r} is {each.shape}, not float32 or integers with a row an image"
            others = [name for name in names if name != each.name]
            hint = f"the first axis of an output must be that of the images; of a detector, {_INSTEAD}"
            hint = f"keep another one with source.output: {', '.join(others)}" if others else hint
            raise CheckpointError(Problem(message, hint))
        if not all(isinstance(size, int) for size in value.shape[1:]):
            message = f"{path}: its output {each.name!r}, {each.shape}, gives any number of values an image"
            raise CheckpointError(Problem(message, "export it for as many values as it has"))
    return outputs


class ChosenOutputs(nn.Module):
    """A network of which only the outputs at some places are kept, as one tensor or a tuple."""

    def __init__(self, network: nn.Module, places: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.places = network, places

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What is kept of the network's answer to float32 images (n, channels, height, width)."""
        leaves = pytree.tree_leaves(self.network(images))
        chosen = tuple(leaves[place] for place in self.places)
        return chosen[0] if len(chosen) == 1 else chosen


def with_outputs(
    program: ExportedProgram, outputs: tuple[Output, ...], batch_range: tuple[int, int]
) -> ExportedProgram:
    """The program with these outputs alone, as one tensor or a tuple: the same where it has no other."""
    spec = program.call_spec.out_spec
    is_flat = spec.is_leaf() or (spec.type is tuple and all(child.is_leaf() for child in spec.children()))
    if is_flat and len(outputs) == spec.num_leaves:
        return program
    module = program.module(check_guards=False)
    return export_program(
        ChosenOutputs(module, tuple(each.place for each in outputs)), example_of(program), batch_range
    )


def described(value: Any) -> str:
    """A value's type and shape, such as "float32 batch x 21 x 64 x 64"."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {' x '.join(map(str, value.shape))}"


def _name(path: tuple[Any, ...]) -> str:
    """The keys on the way to a value, as in "aux.0"; of places alone, as in "output_1"."""
    keys = [str(getattr(entry, "key", getattr(entry, "idx", entry))) for entry in path]
    only_places = all(key.isdigit() for key in keys)
    return f"output_{'_'.join(keys) or 0}" if only_places else ".".join(keys)


def _classes(value: Any) -> int:
    if not isinstance(value, Tensor) or value.dtype is not torch.float32 or value.dim() not in (1, 2):
        return 0
    size = 1 if value.dim() == 1 else value.shape[1]
    return size if isinstance(size, int) else 0
