"""What a network returns, as a tuple of tensors in the order of its state's names.

A program returns one tensor, or a tuple of several. A module may return more: a dictionary, as torchvision's networks
for segmentation do, with outputs that only help training; what the state names is taken of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeopt.errors import ExportError, Problem, RecipeError
from edgeopt.networks.logits import answer_of, described, problem_of_answer
from edgeopt.types import ONLY_LOGITS, ModelState

if TYPE_CHECKING:  # torch is heavy: whoever has a module has imported it already
    from torch import Tensor, nn
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

    from edgeopt.tasks.base import Task

_ROUNDING = 1e-3  # of an output's range: sums of float32 are added in another order for another number of images
_MOVED = 1e-3  # of the integers of an output, such as classes, that rounding before them may change


def tensors(answer: Any) -> tuple[Tensor, ...]:
    """What a program returns, as a tuple."""
    import torch

    return (answer,) if isinstance(answer, torch.Tensor) else tuple(answer)


def outputs_in(answer: Any, names: Sequence[str]) -> tuple[Tensor, ...]:
    """The tensors that `names` name in what a module returned: one tensor, a tuple of as many, or a dictionary with
    these keys and perhaps others; a tensor within a list of a dictionary is called "key.0".

    Raises `ExportError` where they are not there.
    """
    found = _selected(answer, names)
    if found is None:
        raise ExportError(_missing("the network", answer, names))
    return found


def problem_of_outputs(
    name: str,
    answer: Any,
    images: int,
    names: Sequence[str],
    task: Task | None = None,
    classes: int | None = None,
) -> Problem | None:
    """What is wrong with what the module `name` returned for so many images, and what to do; None where it has an
    output for each of `names`, with the images first, and where they are what the task asks of a network for so many
    classes. Without a task, outputs called as a classifier's are held to be logits.
    """
    if tuple(names) == ONLY_LOGITS and (task is None or task.is_of_classes):
        return problem_of_answer(name, answer, images, classes)
    found = _selected(answer, names)
    if found is None:
        return _missing(name, answer, names)
    if task is not None and (wrong := task.unfit([tuple(each.shape) for each in found], images, classes)):
        return Problem(f"{name} returns {wrong}", f"let its forward return what the task {task.name} is about")
    for each, tensor in zip(names, found, strict=True):
        if tensor.dim() == 0 or len(tensor) != images:
            return Problem(
                f"{name} returns {tuple(tensor.shape)} for its output {each!r} and {images} images",
                "the first axis of every output must be that of the images",
            )
    return None


def require_outputs(state: ModelState, images: Tensor) -> None:
    """Raises `RecipeError` when the module of a state, in evaluation mode, does not give the state's outputs, as its
    task asks for them, for `images`, float32 (n, channels, height, width). Its modes stay as they are.
    """
    answer, module = answer_of(state.module, images), type(state.module).__name__
    classes = len(state.classes) or None
    if problem := problem_of_outputs(module, answer, len(images), state.output_names, state.task, classes):
        raise RecipeError(problem)


def require_answers_alone(module: nn.Module, images: Tensor, names: Sequence[str] = ONLY_LOGITS) -> None:
    """Raises `RecipeError` when what `module`, in evaluation mode, answers for an image depends on the others.

    `images` are float32 (n, channels, height, width). A file gets one image at a time in an app, and many in a
    training.
    """
    together = _answers(module, images, names)
    single = [_answers(module, images[index : index + 1], names) for index in range(len(images))]
    for place, (name, beside) in enumerate(zip(names, together, strict=True)):
        apart = [answer[place][0] for answer in single]
        if not beside.is_floating_point():
            continue  # what an argmax makes of rounding says nothing
        span = max(float(beside.max() - beside.min()), float(beside.abs().max()))
        largest = max(float((one - other).abs().max()) for one, other in zip(beside, apart, strict=True))
        if largest > _ROUNDING * span:
            what = "its logits differ" if tuple(names) == ONLY_LOGITS else f"its output {name!r} differs"
            raise RecipeError(
                Problem(
                    f"{type(module).__name__} answers an image otherwise beside {len(images) - 1} other than alone: "
                    f"{what} by {largest:.3g}, and their range is {span:.3g}",
                    "its forward must treat each image for itself in evaluation mode: no statistics over the batch, "
                    "and nothing drawn at random",
                )
            )


def differences(expected: Sequence[Tensor], got: Sequence[Tensor]) -> list[tuple[float, float]]:
    """For each output the largest difference and the range of what was expected; of integers, such as classes, the
    share that differs and 1. NaN differs from everything.
    """
    found = []
    for before, after in zip(expected, got, strict=True):
        if before.is_floating_point():
            span = max((before.max() - before.min()).item(), 1e-12)
            found.append(((before - after).abs().max().item(), span))
        else:
            found.append(((before != after).double().mean().item(), 1.0))
    return found


def tolerated(expected: Tensor, tolerance: float) -> float:
    """The share of its range by which an output may differ: `tolerance`, and for integers what rounding may move."""
    return tolerance if expected.is_floating_point() else max(tolerance, _MOVED)


def give_order(captured: GraphModule, names: Sequence[str]) -> bool:
    """Lets a captured module return, in place, what `names` name: one tensor, or a tuple; whether that changed it."""
    from torch.utils import _pytree as pytree

    codegen: Any = captured.graph._codegen  # noqa: SLF001 - torch has no other way to it
    spec = codegen.pytree_info.out_spec
    output = captured.graph.output_node()
    flat = list(output.args[0]) if isinstance(output.args[0], (tuple, list)) else [output.args[0]]
    order = _selected(pytree.tree_unflatten(list(range(len(flat))), spec), names)
    assert order is not None  # whoever calls has looked at the answer
    chosen = [flat[int(place)] for place in order]
    wanted = pytree.tree_structure(0 if len(chosen) == 1 else tuple(range(len(chosen))))
    if wanted == spec and chosen == flat:
        return False
    output.args = (tuple(chosen),)
    codegen.pytree_info = codegen.pytree_info._replace(out_spec=wanted)
    captured.graph.eliminate_dead_code()
    captured.recompile()
    return True


def returned_nodes(program: ExportedProgram) -> tuple[Node, ...]:
    """The nodes whose values a program returns, in its order."""
    names = {node.name: node for node in program.graph.nodes}
    return tuple(names[str(name)] for name in program.graph_signature.user_outputs)


# ---- what is found in an answer ------------------------------------------------------------------------------------


def _selected(answer: Any, names: Sequence[str]) -> tuple[Any, ...] | None:
    leaves = dict(_leaves(answer))
    if leaves.keys() >= set(names):
        return tuple(leaves[name] for name in names)
    if not isinstance(answer, Mapping) and len(leaves) == len(names):
        return tuple(leaves.values())
    return None


def _leaves(answer: Any, path: str = "") -> list[tuple[str, Any]]:
    """All values of nested dictionaries, tuples and lists, by their keys and places."""
    if isinstance(answer, Mapping):
        inner = list(answer.items())
    elif isinstance(answer, (tuple, list)):
        inner = list(enumerate(answer))
    else:
        return [(path, answer)]
    return [leaf for key, each in inner for leaf in _leaves(each, f"{path}.{key}" if path else str(key))]


def _missing(name: str, answer: Any, names: Sequence[str]) -> Problem:
    wanted = " and ".join(map(repr, names))
    return Problem(
        f"{name} returns {described(answer)}, and its outputs are called {wanted}",
        "let its forward return a dictionary with these keys, or a tuple of as many tensors in this order",
    )


def _answers(module: nn.Module, images: Tensor, names: Sequence[str]) -> tuple[Tensor, ...]:
    """What `module` answers in evaluation mode; raises `RecipeError` where a named output is missing."""
    answer = answer_of(module, images)
    found = _selected(answer, names)
    if found is None:
        raise RecipeError(_missing(type(module).__name__, answer, names))
    return found
