"""The channels of a network that may go, how important they are, and their removal with the training after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgeopt.networks.copies import copy_module
from edgeopt.networks.layer_names import named
from edgeopt.plugins import Json, ModelState, NothingChangedError, PassContext, Problem, Split, UserError, targets_of
from edgeopt_distillation.fit_with_teacher import fit_taught, teacher_of
from edgeopt_distillation.teacher_loss import Teacher
from edgeopt_lightning.fit import batch_norm
from edgeopt_lightning.fit.hooks import FitResult
from edgeopt_lightning.fit.validation import outputs_of, validation_score
from edgeopt_pruning._imports import torch_pruning
from edgeopt_pruning.options import ChannelOptions
from edgeopt_pruning.structured.choice import Ranked
from edgeopt_pruning.structured.cost import NetworkCost, cost_of, layers_of
from edgeopt_pruning.structured.groups import ChannelGroup, Dependencies, Removal, not_called
from edgeopt_pruning.structured.importance import collect_gradients, rank

_BATCH_NORM_IMAGES = 2048
_DOES_NOT_FIT = (AssertionError, IndexError, RuntimeError, ValueError)  # what torch-pruning raises for such channels


# ---- what may go ---------------------------------------------------------------------------------------------------


def removable(
    module: nn.Module, example: Tensor, options: ChannelOptions
) -> list[tuple[ChannelGroup, torch_pruning.Group]]:
    """The groups of channels that may go, each with torch-pruning's own, whose layers are those of `module`.

    Raises `UserError` when the channels of the model cannot be followed, and `NothingChangedError` when none may go.
    """
    hint = "prune-unstructured and quantization do not need to follow them"
    if uncalled := not_called(module, example):
        message = f"the channels of {type(module).__name__} cannot be followed: it never calls its layer {uncalled[0]}"
        raise UserError(Problem(message, hint))
    try:
        groups = Dependencies(module, example).groups()
    except Exception as error:  # torch-pruning raises whatever it runs into
        message = f"the channels of {type(module).__name__} cannot be followed: {type(error).__name__}: {error}"
        raise UserError(Problem(message, hint)) from error
    layers = {side.layer for group, _ in groups for side in group.sides if side.is_output}
    protected = set().union(*named(layers, options.protect, "protect").values())
    left = [
        (group, each)
        for group, each in groups
        if not any(side.is_output and side.layer in protected for side in group.sides)
    ]
    _require_some(left, options, is_fault_of_importance=False)
    return left


def ranked(
    module: nn.Module,
    groups: Sequence[tuple[ChannelGroup, torch_pruning.Group]],
    state: ModelState,
    options: ChannelOptions,
    context: PassContext,
) -> list[Ranked]:
    """The groups that the importance can judge, each with the importance of its units."""
    if options.importance == "taylor":
        collect_gradients(module, state.task, training_batches(state, options.images, 32, context))
    found = rank(groups, options.importance, context.seed)
    module.zero_grad()
    _require_some(found, options, is_fault_of_importance=True)
    return found


def _require_some(groups: Sequence[object], options: ChannelOptions, *, is_fault_of_importance: bool) -> None:
    if not groups:
        hint = "protect less" if options.protect else "leave this pass out"
        raise NothingChangedError(
            "the model has no channels that could be removed",
            hint="take another importance" if is_fault_of_importance else hint,
        )


def broken_without(module: nn.Module, example: Tensor, removal: Removal) -> set[str]:
    """Names of the groups whose removal breaks the module, because its code relies on their number of channels."""
    if _runs_without(module, example, removal):
        return set()
    alone = {name for name, channels in removal.items() if not _runs_without(module, example, {name: channels})}
    return alone or set(removal)


def _runs_without(module: nn.Module, example: Tensor, removal: Removal) -> bool:
    pruned = copy_module(module)
    with torch.no_grad():
        shapes = _shapes(module, example)
        dependencies = Dependencies(pruned, example)
        try:
            dependencies.remove(removal)
        except _DOES_NOT_FIT as error:
            _require_memory(error)
            return False
        try:
            return _shapes(pruned, example) == shapes
        except Exception as error:  # whatever a network's own code raises when a width is not what it was written for
            _require_memory(error)
            return False


def _shapes(module: nn.Module, example: Tensor) -> list[torch.Size]:
    """Those of its outputs, in evaluation mode."""
    return [each.shape for each in outputs_of(module.eval()(example))]


def _require_memory(error: Exception) -> None:
    """Raises `error` where it says that memory is short, which is no fault of the channels that were removed."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error):
        raise error


# ---- what is left --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RemovalStep:
    """One round: what went, what was left of the accuracy right after it, and the recovery training."""

    removal: Removal
    accuracy_before_recovery: float
    cost: NetworkCost
    recovery: FitResult


@dataclass(frozen=True)
class Recovery:
    """What the training after a removal needs: options, and where the options name one the teacher and the control."""

    state: ModelState
    options: ChannelOptions
    context: PassContext
    teacher: Teacher | None
    control: nn.Module | None

    @staticmethod
    def of(state: ModelState, options: ChannelOptions, context: PassContext) -> Recovery:
        """With a control that still has all channels. Raises what `teacher_of` does."""
        teacher = teacher_of(options, state.task, context)
        control = copy_module(state.module) if teacher is not None and options.control else None
        return Recovery(state, options, context, teacher, control)

    def after(self, module: nn.Module, removal: Removal, label: str) -> RemovalStep:
        """Removes channels from `module` and the control, collects BatchNorm statistics anew, and trains both."""
        state, options, context = self.state, self.options, self.context
        example = example_of(state, context)
        for each in (module, self.control):
            if each is not None:
                remove(each, example, removal)
                reestimate_batch_norm(each, state, context, _BATCH_NORM_IMAGES, options.batch_size)
        accuracy = validation_score(module, state.task, context, options.batch_size).value
        result = fit_taught(module, self.teacher, state.task, options, context, label=label, control=self.control)
        return RemovalStep(removal, accuracy, cost_of(layers_of(module, example), {}), result)


def reestimate_batch_norm(
    module: nn.Module, state: ModelState, context: PassContext, images: int, batch_size: int
) -> None:
    """Collects the statistics of all BatchNorm layers from training images; leaves the module in evaluation mode."""
    names = [name for name, layer in module.named_modules() if isinstance(layer, _BatchNorm)]
    batches = training_batches(state, images, batch_size, context)
    batch_norm.reestimate(module.eval(), names, (inputs for inputs, _ in batches))


def remove(module: nn.Module, example: Tensor, removal: Removal) -> None:
    """Removes channels that were chosen for this module, or for one like it.

    Raises `UserError` when the module has no such channels.
    """
    widths = widths_of(module)
    unknown = [name for name, channels in removal.items() if max(channels) >= widths.get(name, 0)]
    if unknown:
        message = f"replay: the model has no channels as were removed from {unknown[0]}"
        raise UserError(Problem(message, "replay on the model that the earlier run pruned", option="replay"))
    Dependencies(module, example).remove(removal)
    for each in module.parameters():  # what torch-pruning cut out are views of what was there
        each.data = each.data.clone(memory_format=torch.contiguous_format)


def training_batches(
    state: ModelState, count: int, batch_size: int, context: PassContext
) -> Iterator[tuple[Tensor, Any]]:
    """Inputs and targets of about `count` images of the training split, drawn by the seed, in batches of one size."""
    split = context.data.train
    count = min(len(split), context.budget.of(context.budget.images, count))
    size = min(batch_size, count)
    order = np.random.default_rng(context.seed).permutation(len(split))[: count // size * size]
    for indices in order.reshape(-1, size).tolist():
        yield inputs_of(state, split, indices), state.task.batch(targets_of(split)[indices])


def example_of(state: ModelState, context: PassContext) -> Tensor:
    """One image as an input, float32 (1, 3, height, width)."""
    return inputs_of(state, context.data.validation, range(1))


def inputs_of(state: ModelState, split: Split, indices: Sequence[int]) -> Tensor:
    """Inputs, float32 (n, channels, height, width)."""
    return torch.from_numpy(state.preprocessing.normalize(split.pixels(indices)))


# ---- what is said of it --------------------------------------------------------------------------------------------


def widths_of(module: nn.Module) -> dict[str, int]:
    """Output channels of the convolutions and linear layers."""
    layers = module.named_modules()
    return {name: width for name, layer in layers if isinstance(width := _width(layer), int)}


def _width(layer: nn.Module) -> object:
    return getattr(layer, "out_channels", getattr(layer, "out_features", None))


def cost_facts(before: NetworkCost, after: NetworkCost) -> dict[str, Json]:
    """Operations and parameters before and after."""
    return {
        "macs_before": before.macs,
        "macs": after.macs,
        "macs_kept": after.macs / before.macs,
        "parameters_before": before.parameters,
        "parameters": after.parameters,
        "parameters_kept": after.parameters / before.parameters,
    }
