"""The pass `prune-structured`: whole channels removed, and training of what is left."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgeopt.errors import NothingChangedError, Problem, UserError
from edgeopt.layer_names import named
from edgeopt.plugin import PassContext
from edgeopt.store import write_aside
from edgeopt.types import Curve, Json, ModelState, PassRecord, Split
from edgeopt_distillation.taught import fit_taught, teacher_of
from edgeopt_distillation.teaching import Teacher
from edgeopt_lightning import batch_norm
from edgeopt_lightning.fit import FitResult
from edgeopt_lightning.validation import validation_score
from edgeopt_pruning.choice import Ranked, Rules, smallest_removal
from edgeopt_pruning.cost import Cost, cost_of, layers_of, lost_channels
from edgeopt_pruning.groups import Dependencies, Group, Removal, not_called
from edgeopt_pruning.importance import collect_gradients, rank
from edgeopt_pruning.measured import FileMeter, cost_in_file
from edgeopt_pruning.options import PruneStructuredOptions
from edgeopt_pruning.replay import NAME, from_report, to_details

_HALVINGS = 24  # of the range of shares: finer than one channel of any network
_HALVINGS_MEASURED = 7  # each exports and runs a file
_BATCH_NORM_PICTURES = 2048
_SHARE_WHEN_LEFT_OUT = 0.5


@dataclass(frozen=True)
class Budget:
    """The cost that a model starts with, the most that may be left, and what tells the cost after a removal."""

    start: float
    most: float
    cost: Callable[[nn.Module, Sequence[Group]], Callable[[Removal], float]]
    halvings: int


@dataclass(frozen=True)
class Step:
    """One round: what went, what was left of the accuracy right after it, and the recovery training."""

    removal: Removal
    accuracy_before_recovery: float
    cost: Cost
    recovery: FitResult


def prune_structured(state: ModelState, options: PruneStructuredOptions, context: PassContext) -> ModelState:
    """A state with a trained copy of the module that lacks its least important channels, in every layer that they run through.

    The answer keeps its classes. With several steps, each removes its share of what is to go, so that the cost falls by the
    same factor each time. A killed run goes on with the removals that it chose. Beside a network that learns from a teacher, the
    control loses the same channels.

    Raises what `teacher_of` and `fit` raise, `NothingChangedError` when nothing can be removed, and `UserError` when the budget is out of reach
    or the channels of the model cannot be followed.
    """
    module = copy.deepcopy(state.module)
    teacher = teacher_of(options, state.task, context)
    control = copy.deepcopy(module) if teacher is not None and options.control else None
    example = _inputs(state, context.data.validation, range(1))
    before = cost_of(layers_of(module, example), {})
    widths = _widths(module)
    accuracy = validation_score(module.eval(), state.task, context, options.batch_size).value
    steps = [
        _step(module, control, teacher, removal, number, state, options, context)
        for number, removal in enumerate(_removals(module, example, state, options, context), 1)
    ]
    record = PassRecord(
        NAME,
        {
            **_cost_facts(before, steps[-1].cost),
            f"validation_{state.task.metric}_before": accuracy,
            f"validation_{state.task.metric}_before_recovery": steps[-1].accuracy_before_recovery,
            "channels_removed": sum(len(channels) for step in steps for channels in step.removal.values()),
            "layers_changed": {
                name: f"{widths[name]} to {width}" for name, width in _widths(module).items() if width != widths[name]
            },
            **steps[-1].recovery.facts,
        },
        _curves(before, steps),
        tuple(dict.fromkeys(warning for step in steps for warning in step.recovery.warnings)),
        to_details([step.removal for step in steps]),
    )
    return state.after(record, module)


# ---- what goes ---------------------------------------------------------------------------------------------------------


def _removals(
    module: nn.Module, example: Tensor, state: ModelState, options: PruneStructuredOptions, context: PassContext
) -> Iterator[Removal]:
    """The removal of each step, chosen for the module as it is when it is asked for."""
    if options.replay is not None:
        yield from from_report(Path(options.replay))
        return
    meter = FileMeter(options.runtime, state, context) if options.cost in ("bytes", "latency") else None
    try:
        budget = _budget(module, example, options, meter)
        for number in range(1, options.steps + 1):
            chosen = context.work_dir / f"{NAME}-{number}.json"
            if not chosen.exists():
                most = budget.start * (budget.most / budget.start) ** (number / options.steps)
                removal = _choose(module, example, replace(budget, most=most), state, options, context)
                write_aside(chosen, json.dumps(removal))
            yield {name: tuple(channels) for name, channels in json.loads(chosen.read_text()).items()}
    finally:
        if meter is not None:
            meter.close()


def _budget(module: nn.Module, example: Tensor, options: PruneStructuredOptions, meter: FileMeter | None) -> Budget:
    if meter is None:

        def counted(module: nn.Module, groups: Sequence[Group]) -> Callable[[Removal], float]:
            layers = layers_of(module, example)
            return lambda removal: getattr(cost_of(layers, lost_channels(groups, removal)), options.cost)

        start = counted(module, ())({})
        cost, halvings = counted, _HALVINGS
    else:
        measure, start = (
            (meter.bytes_of, float(meter.size_bytes))
            if options.cost == "bytes"
            else (meter.latency_of, meter.latency_ms)
        )

        def cost(module: nn.Module, groups: Sequence[Group]) -> Callable[[Removal], float]:  # noqa: ARG001 - a file has all
            return cost_in_file(module, example, measure)

        halvings = _HALVINGS_MEASURED
    most = options.budget if options.budget is not None else (options.keep or _SHARE_WHEN_LEFT_OUT) * start
    if most >= start:
        message = f"the model already costs {_said(start, options)}, no more than budget = {most:g}"
        raise NothingChangedError(Problem(message, "lower budget, or leave this pass out", option="budget"))
    return Budget(start, most, cost, halvings)


def _choose(
    module: nn.Module,
    example: Tensor,
    budget: Budget,
    state: ModelState,
    options: PruneStructuredOptions,
    context: PassContext,
) -> Removal:
    """The least important channels, as few as bring the module within the budget."""
    ranked = _ranked(module, example, state, options, context)
    rules = Rules(options.ranking, options.round_to, options.least)
    cost = budget.cost(module, [each.group for each in ranked])
    while True:
        removal, left = smallest_removal(ranked, rules, cost, budget.most, budget.halvings)
        broken = _broken(module, example, removal)
        if not broken:
            break
        ranked = [each for each in ranked if each.group.name not in broken]
    if left > budget.most:
        message = (
            f"the model costs {_said(left, options)} when all goes that may, more than the {_said(budget.most, options)} that are "
            f"asked for: {len(ranked)} groups of channels can be made smaller"
        )
        hint = f"raise the budget, lower least (now {options.least:g}) or round_to (now {options.round_to}), or protect less"
        raise UserError(Problem(message, hint, option="budget" if options.budget is not None else "keep"))
    return removal


def _ranked(
    module: nn.Module, example: Tensor, state: ModelState, options: PruneStructuredOptions, context: PassContext
) -> list[Ranked]:
    hint = "prune-unstructured and quantization do not need to follow them"
    if uncalled := not_called(module, example):
        message = f"the channels of {type(module).__name__} cannot be followed: it never calls its layer {uncalled[0]}"
        raise UserError(Problem(message, hint))
    try:
        dependencies = Dependencies(module, example)
        groups = dependencies.groups()
    except Exception as error:  # torch-pruning raises whatever it runs into
        message = f"the channels of {type(module).__name__} cannot be followed: {type(error).__name__}: {error}"
        raise UserError(Problem(message, hint)) from error
    layers = {side.layer for group, _ in groups for side in group.sides if side.is_output}
    protected = set().union(*named(layers, options.protect, "protect").values())
    groups = [
        (group, each)
        for group, each in groups
        if not any(side.is_output and side.layer in protected for side in group.sides)
    ]
    if options.importance == "taylor":
        collect_gradients(module, state.task, _training_batches(state, options.pictures, 32, context))
    ranked = rank(groups, options.importance, context.seed)
    module.zero_grad()
    if not ranked:
        message = "the model has no channels that could be removed"
        hint = "protect less, or take another importance" if groups or options.protect else "leave this pass out"
        raise NothingChangedError(Problem(message, hint))
    return ranked


def _broken(module: nn.Module, example: Tensor, removal: Removal) -> set[str]:
    """Names of the groups without which the module does not run any more: its code counts on their number of channels."""
    if _runs_without(module, example, removal):
        return set()
    alone = {name for name, channels in removal.items() if not _runs_without(module, example, {name: channels})}
    return alone or set(removal)


def _runs_without(module: nn.Module, example: Tensor, removal: Removal) -> bool:
    pruned = copy.deepcopy(module)
    with torch.no_grad():
        shape = module.eval()(example).shape
        try:
            Dependencies(pruned, example).remove(removal)
            return bool(pruned.eval()(example).shape == shape)
        except Exception:  # whatever a network's own code raises when a width is not what it was written for
            return False


# ---- what is left ------------------------------------------------------------------------------------------------------


def _step(
    module: nn.Module,
    control: nn.Module | None,
    teacher: Teacher | None,
    removal: Removal,
    number: int,
    state: ModelState,
    options: PruneStructuredOptions,
    context: PassContext,
) -> Step:
    """Removes channels from `module` and `control`, collects BatchNorm statistics anew, and trains both."""
    if not removal:
        raise NothingChangedError(
            f"step {number} of {options.steps} removes nothing: channels go {options.round_to} at a time",
            hint="lower round_to or steps, or the budget",
        )
    example = _inputs(state, context.data.validation, range(1))
    for each in (module, control):
        if each is not None:
            _remove(each, example, removal)
            names = [name for name, layer in each.named_modules() if isinstance(layer, _BatchNorm)]
            pictures = _training_batches(state, _BATCH_NORM_PICTURES, options.batch_size, context)
            batch_norm.reestimate(each.eval(), names, (inputs for inputs, _ in pictures))
    accuracy = validation_score(module, state.task, context, options.batch_size).value
    recovery = fit_taught(module, teacher, state.task, options, context, label=f"{NAME}-{number}", control=control)
    return Step(removal, accuracy, cost_of(layers_of(module, example), {}), recovery)


def _remove(module: nn.Module, example: Tensor, removal: Removal) -> None:
    """Removes channels that were chosen for this module, or for one like it.

    Raises `UserError` when the module has no such channels.
    """
    widths = _widths(module)
    unknown = [name for name, channels in removal.items() if max(channels) >= widths.get(name, 0)]
    if unknown:
        message = f"replay: the model has no channels as were removed from {unknown[0]}"
        raise UserError(Problem(message, "replay on the model that the earlier run pruned", option="replay"))
    Dependencies(module, example).remove(removal)
    for each in module.parameters():  # what torch-pruning cut out are views of what was there
        each.data = each.data.clone(memory_format=torch.contiguous_format)


def _training_batches(
    state: ModelState, count: int, batch_size: int, context: PassContext
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and labels of about `count` pictures of the training split, drawn by the seed, in batches of one size."""
    split = context.data.train
    count = min(len(split), context.budget.of(context.budget.pictures, count))
    size = min(batch_size, count)
    order = np.random.default_rng(context.seed).permutation(len(split))[: count // size * size]
    for indices in order.reshape(-1, size).tolist():
        yield _inputs(state, split, indices), torch.from_numpy(split.labels[indices])


def _inputs(state: ModelState, split: Split, indices: Sequence[int]) -> Tensor:
    return torch.from_numpy(state.preprocessing.normalize(split.pixels(indices)))


# ---- what is said of it --------------------------------------------------------------------------------------------------


def _widths(module: nn.Module) -> dict[str, int]:
    """Output channels of the convolutions and linear layers."""
    layers = module.named_modules()
    return {name: width for name, layer in layers if isinstance(width := _width(layer), int)}


def _width(layer: nn.Module) -> object:
    return getattr(layer, "out_channels", getattr(layer, "out_features", None))


def _cost_facts(before: Cost, after: Cost) -> dict[str, Json]:
    return {
        "macs_before": before.macs,
        "macs": after.macs,
        "macs_kept": after.macs / before.macs,
        "parameters_before": before.parameters,
        "parameters": after.parameters,
        "parameters_kept": after.parameters / before.parameters,
    }


def _curves(before: Cost, steps: Sequence[Step]) -> tuple[Curve, ...]:
    """The cost by step, and the curves of each step's training."""
    many = len(steps) > 1
    kept = (1.0, *(step.cost.macs / before.macs for step in steps))
    falling = (Curve("operations left", tuple(float(step) for step in range(len(kept))), kept, "step", "share"),)
    trained = (
        replace(curve, name=f"step {number}: {curve.name}") if many else curve
        for number, step in enumerate(steps, 1)
        for curve in step.recovery.curves
    )
    return (*(falling if many else ()), *trained)


def _said(value: float, options: PruneStructuredOptions) -> str:
    """A cost with its unit."""
    unit = {"macs": "multiplications", "parameters": "parameters", "bytes": "bytes", "latency": "ms"}[options.cost]
    return f"{value:.3g} {unit}" if options.cost == "latency" else f"{value:,.0f} {unit}"
