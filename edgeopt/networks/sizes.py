"""A program for images of another size: the same operators, weights and scales, and nothing trained or calibrated anew.

A float program is captured anew from its module, whose forward knows what it does with another size. One whose
arithmetic is fixed, such as an int8 program, is traced again, which would keep whatever its first capture worked out
from the size of an image; so the module before it is captured for both sizes, and the two must be the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgeopt.arrays import ImageSize, sides_of, size_in_words
from edgeopt.errors import ExportError, FunctionChangedError, Problem, first_line
from edgeopt.networks.capture import capture_state, example_of, export_program, imports_of
from edgeopt.networks.layers import layer_call
from edgeopt.types import TORCH, ModelState

if TYPE_CHECKING:  # torch is heavy: whoever has a state has imported it already
    from torch import Tensor
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

_HINT = "leave this size out; a network that ends in a pooling over all places takes any"
_IMAGES = 2  # on which a program that was traced again must answer as before, bit for bit


def at_image_size(state: ModelState, origin: ModelState, size: ImageSize, *, is_fixed: bool) -> ModelState:
    """`state`, in program form, for images of `size`, px. `origin` is the last state in module form on the way to it:
    the one that it was captured from or, where it `is_fixed`, the one whose arithmetic a pass fixed.

    Raises `ExportError` where the network takes images of its own size alone, or works out otherwise what it does for
    another, and says by what; `FunctionChangedError` where the program would not be the same one.
    """
    preprocessing = state.preprocessing.at_size(size)
    if state.framework != TORCH:
        raise ExportError(f"it is a model of {state.framework}, and programs of {TORCH} alone are made for other sizes")
    program = _captured(origin, size)
    if is_fixed:
        _require_same_layers(origin, program, size)
        return replace(state, model=_traced(state, size), preprocessing=preprocessing)
    return replace(state, model=program, preprocessing=preprocessing, imports=imports_of(program, origin.imports))


def _captured(origin: ModelState, size: ImageSize) -> ExportedProgram:
    try:
        return capture_state(origin, _images(origin, size)).program
    except ExportError as error:
        own, other = size_in_words(origin.preprocessing.image_size), size_in_words(size)
        reason = _fixed_by(origin) or first_line(error)
        message = f"{type(origin.module).__name__} takes images of {own} px alone, and none of {other} px: {reason}"
        raise ExportError(Problem(message, _HINT)) from error


def _images(state: ModelState, size: ImageSize) -> Tensor:
    import torch

    shape = (_IMAGES, state.preprocessing.channels, *sides_of(size))
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _traced(state: ModelState, size: ImageSize) -> ExportedProgram:
    """The program traced again for another size, after it was traced for its own to see that it stays the same."""
    import torch

    own = state.preprocessing.image_size
    plain = _without_checks(state.program)
    again = export_program(plain, _images(state, own), state.batch_range)
    example = example_of(state.program)
    with torch.no_grad():
        same = torch.equal(plain(example), again.module(check_guards=False)(example))
    try:
        program = export_program(plain, _images(state, size), state.batch_range)
    except ExportError as error:
        sizes = f"images of {size_in_words(own)} px alone, and none of {size_in_words(size)} px"
        message = f"the {state.precision} program takes {sizes}"
        raise ExportError(Problem(f"{message}: {first_line(error)}", _HINT)) from error
    if not same or _calls(again) != _calls(program):
        raise FunctionChangedError(
            f"tracing the {state.precision} program for {size_in_words(size)} px changed more than the size of images",
            hint=_HINT,
        )
    return program


def _require_same_layers(origin: ModelState, of_module: ExportedProgram, size: ImageSize) -> None:
    """Raises `ExportError` where the module works out something else than at its own size: the program has what it
    worked out there.
    """
    own = origin.preprocessing.image_size
    before, after = _calls(_captured(origin, own)), _calls(of_module)
    if before == after:
        return
    named = next((each for each, other in zip(before, after, strict=False) if each != other), before[-1])
    where = f" in {named.module}" if named.module else ""
    message = (
        f"{type(origin.module).__name__} works out {named.operator}{where} from the size of an image, otherwise for "
        f"{size_in_words(size)} px than for {size_in_words(own)} px, and the program whose arithmetic is fixed has "
        f"what holds for {size_in_words(own)} px"
    )
    raise ExportError(Problem(message, _HINT))


def _without_checks(program: ExportedProgram) -> GraphModule:
    """The program as a module that does not look at the size of what it is given."""
    from torch.fx import GraphModule as Module  # torch is there already

    module = program.module(check_guards=False)
    return Module(module, module.graph).eval()


# ---- what a program is made of -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """One call of a program: its operator, and its arguments as text, in which weights stand by their bytes.

    `module` is the path of its module, which does not tell two calls apart.
    """

    operator: str
    arguments: str
    module: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Call) and (self.operator, self.arguments) == (other.operator, other.arguments)

    def __hash__(self) -> int:
        return hash((self.operator, self.arguments))


def _calls(program: ExportedProgram) -> list[_Call]:
    """The calls of a program in their order; two that have the same ones differ in the size of images alone."""
    from torch.fx.node import map_arg

    tensors = {**program.state_dict, **program.constants}
    targets = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs}
    names: dict[Node, str] = {}
    found: list[_Call] = []
    for node in program.graph.nodes:
        if node.op == "placeholder":
            target = targets.get(node.name)
            names[node] = _digest(tensors[target]) if target in tensors else "%input"
            continue
        names[node] = f"%{len(found)}"
        arguments = repr(map_arg((node.args, node.kwargs), names.__getitem__))
        found.append(_Call(str(node.target), arguments, _module_of(node)))
    return found


def _digest(value: Any) -> str:
    from torch import Tensor as OfTorch

    if not isinstance(value, OfTorch):
        return repr(value)
    plain = value.detach().cpu().contiguous()
    content = plain.reshape(-1).view(_byte()).numpy().tobytes() if plain.numel() else b""
    return f"{plain.dtype} {tuple(plain.shape)} {hashlib.sha256(content).hexdigest()}"


def _byte() -> Any:
    import torch

    return torch.uint8


def _module_of(node: Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()), ("", ""))[0]
    return str(path).removeprefix("L['self'].")


# ---- why a network takes one size alone ----------------------------------------------------------------------------


def _fixed_by(origin: ModelState) -> str | None:
    """What of a network fits images of one size alone, by its name; None where nothing is known."""
    own = origin.preprocessing.image_size
    try:
        program = capture_state(origin, _images(origin, own)).program
    except ExportError:
        return None
    return next((f"{each} an image of {size_in_words(own)} px" for each in _places(program)), None)


def _places(program: ExportedProgram) -> Iterator[str]:
    import torch

    weights = {spec.arg.name: str(spec.target) for spec in program.graph_signature.input_specs if spec.target}
    for node in program.graph.nodes:
        if node.target in (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor):
            for each in node.all_input_nodes:
                shape = each.meta["val"].shape if each.name in weights else ()
                if sum(side > 1 for side in shape) > 1:
                    sides = " × ".join(map(str, shape))
                    yield f"{weights[each.name]} ({sides}) is added at fixed places of"
    for node in program.graph.nodes:
        layer = layer_call(node)
        source = layer.input if layer else None
        if layer is None or source is None or source.op != "call_function" or not source.all_input_nodes:
            continue
        before = source.all_input_nodes[0].meta.get("val")
        flattens = getattr(before, "ndim", 0) == 4 and source.meta["val"].ndim == 2
        if flattens and before is not None and before.shape[-1] * before.shape[-2] > 1:
            name = weights.get(layer.weight.name, layer.weight.name).rpartition(".")[0] or "its layer"
            yield f"{name} takes {source.meta['val'].shape[-1]:,} values, all places of"
