"""The pass `prune-structured`: whole channels removed, and training of what is left."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from edgeopt.files import write_aside
from edgeopt.networks.copies import copy_module
from edgeopt.plugins import Curve, ModelState, NothingChangedError, PassContext, PassRecord
from edgeopt_lightning.fit.validation import validation_score
from edgeopt_pruning.options import PruneStructuredOptions
from edgeopt_pruning.stored_weights import with_stored_weights
from edgeopt_pruning.structured.attention import left_alone
from edgeopt_pruning.structured.budget import ChannelBudget, budget_of, require_reached
from edgeopt_pruning.structured.channels import (
    Recovery,
    RemovalStep,
    broken_without,
    cost_facts,
    example_of,
    ranked,
    removable,
    widths_of,
)
from edgeopt_pruning.structured.choice import Rules, smallest_removal
from edgeopt_pruning.structured.cost import NetworkCost, cost_of, layers_of
from edgeopt_pruning.structured.groups import ChannelGroup, Removal
from edgeopt_pruning.structured.replay import NAME, from_report, to_details
from edgeopt_pruning.unstructured.allocated import read_shares

_ROUNDING = 1e-9  # 0.3 of 10 channels are 3


def prune_structured(state: ModelState, options: PruneStructuredOptions, context: PassContext) -> ModelState:
    """A state with a trained copy of the module, without its least important channels in any layer they run through.

    The answer keeps its classes. With several steps, each removes its share of what is to go, so that the cost falls by
    the same factor each time. A killed run goes on with the removals that it chose. Beside a network that learns from a
    teacher, the control loses the same channels.

    Raises what `teacher_of` and `fit` raise, `NothingChangedError` when nothing can be removed, and `UserError` when
    the budget is out of reach or the channels of the model cannot be followed.
    """
    state, warnings = with_stored_weights(state)
    module = copy_module(state.module)
    recovery = Recovery.of(state, options, context)
    example = example_of(state, context)
    before = cost_of(layers_of(module, example), {})
    widths = widths_of(module)
    accuracy = validation_score(module.eval(), state.task, context, options.batch_size).value
    steps = []
    for number, removal in enumerate(_removals(module, example, state, options, context), 1):
        if not removal:
            raise NothingChangedError(
                f"step {number} of {options.steps} removes nothing: channels go {options.round_to} at a time",
                hint="lower round_to or steps, or the budget",
            )
        steps.append(recovery.after(module, removal, f"{NAME}-{number}"))
    record = PassRecord(
        NAME,
        {
            **cost_facts(before, steps[-1].cost),
            f"validation_{state.task.metric}_before": accuracy,
            f"validation_{state.task.metric}_before_recovery": steps[-1].accuracy_before_recovery,
            "channels_removed": sum(len(channels) for step in steps for channels in step.removal.values()),
            "layers_changed": {
                name: f"{widths[name]} to {width}" for name, width in widths_of(module).items() if width != widths[name]
            },
            **({"attention_left_alone": left} if (left := left_alone(module)) else {}),
            **steps[-1].recovery.facts,
        },
        _curves(before, steps),
        (*warnings, *dict.fromkeys(warning for step in steps for warning in step.recovery.warnings)),
        to_details([step.removal for step in steps]),
    )
    return state.after(record, module)


# ---- what goes -----------------------------------------------------------------------------------------------------


def _removals(
    module: nn.Module, example: Tensor, state: ModelState, options: PruneStructuredOptions, context: PassContext
) -> Iterator[Removal]:
    """The removal of each step, chosen for the module as it is when it is asked for."""
    if options.replay is not None:
        yield from from_report(Path(options.replay))
        return
    with budget_of(module, example, state, options, context) as budget:
        for number in range(1, options.steps + 1):
            chosen = context.work_dir / f"{NAME}-{number}.json"
            if not chosen.exists():
                most = budget.start * (budget.most / budget.start) ** (number / options.steps)
                removal = _choose(module, example, replace(budget, most=most), state, options, context)
                write_aside(chosen, json.dumps(removal))
            yield {name: tuple(channels) for name, channels in json.loads(chosen.read_text()).items()}


def _choose(
    module: nn.Module,
    example: Tensor,
    budget: ChannelBudget,
    state: ModelState,
    options: PruneStructuredOptions,
    context: PassContext,
) -> Removal:
    """The least important channels, as few as bring the module within the budget."""
    candidates = ranked(module, removable(module, example, options), state, options, context)
    groups = [each.group for each in candidates]
    rules = Rules(options.ranking, options.round_to, options.least, _floors(state.module, groups, options))
    cost = budget.cost(module, groups)
    while True:
        removal, left = smallest_removal(candidates, rules, cost, budget.most, budget.halvings)
        broken = broken_without(module, example, removal)
        if not broken:
            break
        candidates = [each for each in candidates if each.group.name not in broken]
    require_reached(left, budget.most, len(candidates), options)
    return removal


def _floors(module: nn.Module, groups: Sequence[ChannelGroup], options: PruneStructuredOptions) -> dict[str, int]:
    """The fewest channels that an allocation leaves of each group of `module`, as it was before the first step.

    A group loses at most the smallest share among the layers whose outputs it holds.
    """
    if options.allocation is None:
        return {}
    allocation, widths = read_shares(options.allocation), widths_of(module)
    allocation.require_layers(widths)
    floors = {}
    for group in groups:
        layers = {side.layer for side in group.sides if side.is_output and side.layer in widths}
        share = min((allocation.levels.get(layer, 0.0) for layer in layers), default=0.0)
        floors[group.name] = math.ceil((1 - share) * widths.get(group.name, group.channels) - _ROUNDING)
    return floors


# ---- what is said of it --------------------------------------------------------------------------------------------


def _curves(before: NetworkCost, steps: Sequence[RemovalStep]) -> tuple[Curve, ...]:
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
