"""The one answer that a network must give: logits (batch, classes), and nothing beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgeopt.errors import Problem, RecipeError

if TYPE_CHECKING:  # torch is heavy: whoever has a module has imported it already
    from torch import Tensor, nn

_REFUSALS = (RuntimeError, ValueError, TypeError, AssertionError, IndexError, KeyError)  # what a forward may raise


def require_logits(module: nn.Module, images: Tensor, classes: int | None = None) -> None:
    """Raises `RecipeError` when `module`, in evaluation mode, gives anything but logits (n, `classes`) for `images`.

    `images` are float32 (n, channels, height, width). The module's modes stay as they are.
    """
    if problem := problem_of_answer(type(module).__name__, answer_of(module, images), len(images), classes):
        raise RecipeError(problem)


def answer_of(module: nn.Module, images: Tensor) -> object:
    """What `module` returns for `images` in evaluation mode; its modes stay as they are.

    Raises `RecipeError` where it does not take them.
    """
    import torch

    modes = {each: each.training for each in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            answer: object = module(images)
    except _REFUSALS as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RecipeError(
            Problem(
                f"{type(module).__name__} does not take images of shape {tuple(images.shape)}: {reason}",
                "its forward must take float32 images (n, channels, height, width) and return logits",
            )
        ) from error
    finally:
        for each, mode in modes.items():
            each.training = mode
    return answer


def in_training(module: nn.Module, answer: object, images: int) -> Problem:
    """What is wrong with a network that gives something beside the logits in training mode alone, and what to do."""
    problem = problem_of_answer(f"{type(module).__name__}, in training mode,", answer, images)
    assert problem is not None  # whoever calls has seen that it is no tensor
    return problem


def problem_of_answer(name: str, answer: object, images: int, classes: int | None = None) -> Problem | None:
    """What is wrong with the answer of the module `name` for so many images, and what to do; None for logits."""
    import torch

    if not isinstance(answer, torch.Tensor):
        return Problem(
            f"{name} returns {described(answer)} for {images} images, not logits (batch, classes) alone",
            f"wrap it in a module that returns the logits alone: return self.network(x){_way_to_logits(answer)}",
        )
    if answer.dim() == 2 and len(answer) == images and classes in (None, answer.shape[1]):
        return None
    wanted = "(batch, classes)" if classes is None else f"(batch, {classes})"
    hint = "wrap it in a module that returns the logits alone"
    if images == 1 and answer.dim() == 1:
        hint = "a squeeze() takes away the batch of one image: use flatten(1)"
    return Problem(f"{name} returns {tuple(answer.shape)} for {images} images, not logits {wanted}", hint)


def described(answer: object) -> str:
    """An answer in words, such as "a tuple of 2 tensors (2, 10) and (2, 8)", or "a ModelOutput with logits (2, 10)"."""
    if isinstance(answer, Mapping):
        return f"a {type(answer).__name__} with " + " and ".join(
            f"{key} {_shape(each)}" for key, each in answer.items()
        )
    if isinstance(answer, (tuple, list)):
        return f"a {type(answer).__name__} of {len(answer)}: " + " and ".join(map(_shape, answer))
    fields = {key: each for key, each in getattr(answer, "__dict__", {}).items() if hasattr(each, "shape")}
    described = " and ".join(f"{key} {_shape(each)}" for key, each in fields.items())
    return f"a {type(answer).__name__}" + (f" with {described}" if described else "")


def _shape(value: object) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else str(tuple(shape))


def _way_to_logits(answer: object) -> str:
    """How to reach the first tensor of two dimensions in an answer, which most often holds the logits."""
    if isinstance(answer, Mapping):
        found = [key for key, each in answer.items() if getattr(each, "ndim", 0) == 2]
        key = "logits" if "logits" in answer else next(iter(found), "logits")
        return f"[{key!r}]"
    if isinstance(answer, (tuple, list)):
        return f"[{next((place for place, each in enumerate(answer) if getattr(each, 'ndim', 0) == 2), 0)}]"
    return ".logits"
