"""What sources of models share: the classifier head, BatchNorm's momentum, the images a network takes, its first
state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn
from torch.func import functional_call

from edgeopt.arrays import ImageSize, Json, sides_of, size_in_words
from edgeopt.errors import Problem, RecipeError, first_line
from edgeopt.networks.logits import problem_of_answer
from edgeopt.preprocessing import Preprocessing
from edgeopt.preprocessing.decoded import LUMA
from edgeopt.types import Form, ModelState, PassRecord, TrainingData

_COLOURS = 3  # channels
_LARGEST = 1024  # px; no known network has a larger smallest size


def float_state(
    model: nn.Module, data: TrainingData, facts: Mapping[str, Json], warnings: Iterable[str] = ()
) -> ModelState:
    """The state that a model starts as; `facts` and `warnings` about it go into the report."""
    counted = {**facts, "parameters": sum(parameter.numel() for parameter in model.parameters())}
    record = PassRecord("model", counted, warnings=tuple(warnings))
    return ModelState(model, Form.MODULE, data.task, data.classes, data.preprocessing, history=(record,))


def normalization_warnings(
    preprocessing: Preprocessing, weights: str, mean: Sequence[float], std: Sequence[float]
) -> list[str]:
    """A warning when pretrained weights were trained on images normalized in another way."""
    if preprocessing.channels == 1 and len(mean) == _COLOURS:  # as the weights of its first convolution are summed
        mean, std = ((sum(w * value for w, value in zip(LUMA, each, strict=True)),) for each in (mean, std))
    trained, used = (*mean, *std), (*preprocessing.mean, *preprocessing.std)
    if all(abs(one - other) < 1e-3 for one, other in zip(trained, used, strict=True)):
        return []
    return [f"weights {weights} were trained with mean = {list(mean)} and std = {list(std)}, other than here"]


def find_head(model: nn.Module, outputs: int) -> str:
    """Name of the module that gives the logits: the last Linear, or 1x1 convolution, with `outputs` outputs."""
    heads: list[str] = [
        name
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) and module.out_features == outputs)
        or (isinstance(module, nn.Conv2d) and module.out_channels == outputs and module.kernel_size == (1, 1))
    ]
    if not heads:
        raise ValueError(f"{type(model).__name__} has no layer with {outputs} outputs")
    return heads[-1]


def replace_head(model: nn.Module, before: int, after: int) -> str:
    """Gives a model of `before` outputs a fresh head of `after`, drawn from torch's seeded generator; returns its name.

    Raises `ValueError` when it has no head that can be replaced.
    """
    name = find_head(model, before)
    head = model.get_submodule(name)
    fresh: nn.Module
    if isinstance(head, nn.Linear):
        fresh = nn.Linear(head.in_features, after, head.bias is not None)
    else:
        assert isinstance(head, nn.Conv2d)  # the other kind that `find_head` finds
        fresh = nn.Conv2d(head.in_channels, after, 1, bias=head.bias is not None)
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, fresh)
    return name


def take_channels(model: nn.Module, channels: int) -> str:
    """Gives a model of colours a first convolution for images of `channels`, drawn from torch's seeded generator;
    returns its name, or nothing where it takes them already.

    Raises `ValueError` where its first layer is no convolution of three channels.
    """
    if channels == _COLOURS:
        return ""
    layers = ((name, each) for name, each in model.named_modules() if isinstance(each, nn.Conv2d | nn.Linear))
    name, first = next(layers, ("", None))
    if not isinstance(first, nn.Conv2d) or first.in_channels != _COLOURS or first.groups != 1:
        raise ValueError(f"{type(model).__name__} does not begin with a convolution of three channels")
    fresh = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]  # of two numbers, as of every Conv2d
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        first.dilation,  # type: ignore[arg-type]
        bias=first.bias is not None,
        padding_mode=first.padding_mode,
    )
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, fresh)
    return name


def set_batch_norm_momentum(model: nn.Module, momentum: float) -> int:
    """Sets the momentum of every BatchNorm and returns how many there are.

    Running statistics forget after about 1 / momentum batches: with 0.01, as some networks come, a short run evaluates
    with the statistics of the untrained network.
    """
    base = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - the common base has no public name
    norms = [module for module in model.modules() if isinstance(module, base)]
    for norm in norms:
        norm.momentum = momentum
    return len(norms)


def require_input(
    model: nn.Module,
    name: str,
    image_size: ImageSize,
    classes: int,
    hint: str | None = None,
    *,
    channels: int = _COLOURS,
) -> None:
    """Raises `RecipeError` when `model` does not turn images of `image_size`, px, into logits for `classes`.

    Only shapes are computed. The hint says the smallest size that works where there is one, unless `hint` is given.
    """
    size = sides_of(image_size)
    reason = _refusal(model, channels, size, classes)
    if reason is None:
        return
    largest = max(_LARGEST, *size)
    if hint is None and _refusal(model, channels, (largest, largest), classes) is None:
        low, high = 0, largest  # by which each side is at least: refused, taken
        while high - low > 1:
            middle = (low + high) // 2
            taken = _refusal(model, channels, _at_least(size, middle), classes) is None
            low, high = (low, middle) if taken else (middle, high)
        hint = f"set image_size to {_written(_at_least(size, high))} or more"
    raise RecipeError(Problem(f"{name} does not take images of {size_in_words(image_size)} px: {reason}", hint))


def _at_least(size: tuple[int, int], least: int) -> tuple[int, int]:
    return max(size[0], least), max(size[1], least)


def _written(size: tuple[int, int]) -> str:
    """A size as a recipe has it."""
    return str(size[0]) if size[0] == size[1] else str(list(size))


def _refusal(model: nn.Module, channels: int, size: tuple[int, int], classes: int) -> str | None:
    """Why the network does not take images of this size, or None."""
    state = {name: torch.empty_like(value, device="meta") for name, value in _tensors(model).items()}
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            images = torch.empty(2, channels, *size, device="meta")
            logits = functional_call(model, state, (images,))
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        return first_line(error)
    finally:
        model.train(training)
    problem = problem_of_answer("it", logits, 2, classes)
    return None if problem is None else problem.message


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
