"""The pass `prune-search`: the widths of all layers, from one threshold on the degradation that each may cause."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from edgeopt.files import write_aside
from edgeopt.networks.copies import copy_module
from edgeopt.plugins import (
    Curve,
    Json,
    ModelState,
    NothingChangedError,
    PassContext,
    PassRecord,
    Problem,
    ScoreKind,
    TrainingError,
)
from edgeopt_lightning.fit.validation import Validated, validated
from edgeopt_pruning.options import PruneSearchOptions
from edgeopt_pruning.stored_weights import with_stored_weights
from edgeopt_pruning.structured.budget import ChannelBudget, budget_of, require_reached
from edgeopt_pruning.structured.channels import (
    Recovery,
    broken_without,
    cost_facts,
    example_of,
    ranked,
    reestimate_batch_norm,
    removable,
    remove,
    widths_of,
)
from edgeopt_pruning.structured.choice import Ranked, Rules, rounded
from edgeopt_pruning.structured.cost import cost_of, layers_of, lost_channels
from edgeopt_pruning.structured.groups import Removal
from edgeopt_pruning.structured.replay import SEARCH, to_details
from edgeopt_pruning.structured.width_sensitivity import (
    Candidate,
    Sensitivity,
    removal_at,
    smallest_threshold,
    thresholds_of,
)


@dataclass(frozen=True)
class Trial:
    """How a network validated with so many units of one group left, its BatchNorm statistics collected anew."""

    units: int
    loss: float
    metric: float


@dataclass(frozen=True)
class Found:
    """What the search came to: the map by group, the smallest threshold that meets the budget, and what it removes."""

    whole: Trial
    trials: Mapping[str, tuple[Trial, ...]]
    threshold: float
    removal: Removal
    falling: Curve


def prune_search(state: ModelState, options: PruneSearchOptions, context: PassContext) -> ModelState:
    """A state with a trained copy of the module, each group of channels as narrow as the network minds least.

    Every group is tried alone at several widths. One threshold on the degradation that they cause then gives each group
    its width, and is as low as the budget allows. A killed run goes on with the trials that were done.

    The idea, a map of sensitivities searched by one threshold, is that of FastNAS in NVIDIA's Model Optimizer; groups
    that depend on each other are those of Fang et al., 2023, https://arxiv.org/abs/2301.12900.

    Raises what `teacher_of` and `fit` raise, `TrainingError` for a model that is no better than guessing,
    `NothingChangedError` when nothing can be removed, and `UserError` when the budget is out of reach.
    """
    state, stored = with_stored_weights(state)
    module = copy_module(state.module).eval()
    recovery = Recovery.of(state, options, context)
    example = example_of(state, context)
    before, widths = cost_of(layers_of(module, example), {}), widths_of(module)
    trial, answers = _try(copy_module(module), 0, state, options, context)
    warnings = (*stored, *_require_knowledge(answers, context))
    found = _search(module, example, trial, state, options, context)
    step = recovery.after(module, found.removal, SEARCH)
    metric = state.task.metric
    record = PassRecord(
        SEARCH,
        {
            **cost_facts(before, step.cost),
            "threshold": found.threshold,
            "degradation": "rise of the validation loss"
            if options.degradation == "loss"
            else f"fall of the validation {metric}",
            "groups": len(found.trials),
            "trials": sum(map(len, found.trials.values())),
            f"validation_{metric}_before": answers.score.value,
            f"validation_{metric}_before_recovery": step.accuracy_before_recovery,
            "channels_removed": sum(map(len, found.removal.values())),
            "layers_changed": {
                name: f"{widths[name]} to {width}" for name, width in widths_of(module).items() if width != widths[name]
            },
            **step.recovery.facts,
        },
        (found.falling, *step.recovery.curves),
        (*warnings, *step.recovery.warnings),
        {**to_details([found.removal]), "sensitivity": _details(found, metric)},
    )
    return state.after(record, module)


# ---- the search ----------------------------------------------------------------------------------------------------


def _search(
    module: nn.Module,
    example: Tensor,
    whole: Trial,
    state: ModelState,
    options: PruneSearchOptions,
    context: PassContext,
) -> Found:
    groups = ranked(module, removable(module, example, options), state, options, context)
    rules = Rules("local", options.round_to, options.least)
    kind = state.task.score_kinds[0]
    with budget_of(module, example, state, options, context) as budget:
        trials = _trials(module, example, groups, rules, state, options, context)
        candidates = [
            Candidate.of(each, rules, _sensitivity(whole, trials[each.group.name], each.group.units, options, kind))
            for each in groups
            if each.group.name in trials
        ]
        if not candidates:
            hint = "lower round_to, or leave this pass out"
            raise NothingChangedError("no group of channels can be made narrower", hint=hint)
        chosen = _chosen(module, example, candidates, budget, options, context)
        falling = _falling(module, example, candidates)
    return Found(whole, trials, chosen[0], chosen[1], falling)


def _chosen(
    module: nn.Module,
    example: Tensor,
    candidates: Sequence[Candidate],
    budget: ChannelBudget,
    options: PruneSearchOptions,
    context: PassContext,
) -> tuple[float, Removal]:
    """The threshold and its removal, remembered: a latency is never measured alike twice."""
    file = context.work_dir / f"{SEARCH}-removal.json"
    if not file.exists():
        cost = budget.cost(module, [each.ranked.group for each in candidates])
        while True:
            threshold, removal, left = smallest_threshold(candidates, cost, budget.most)
            broken = broken_without(module, example, removal)
            if not broken:
                break
            candidates = [each for each in candidates if each.ranked.group.name not in broken]
        require_reached(left, budget.most, len(candidates), options)
        write_aside(file, json.dumps([threshold, removal]))
    threshold, removal = json.loads(file.read_text())
    return threshold, {name: tuple(channels) for name, channels in removal.items()}


def _trials(
    module: nn.Module,
    example: Tensor,
    groups: Sequence[Ranked],
    rules: Rules,
    state: ModelState,
    options: PruneSearchOptions,
    context: PassContext,
) -> dict[str, tuple[Trial, ...]]:
    """The trials of each group at each of its widths.

    Left out are groups that cannot be narrower, and those whose width the model's own code relies on.
    """
    file = context.work_dir / f"{SEARCH}-map.json"
    done: dict[str, list[list[float]]] = json.loads(file.read_text()) if file.exists() else {}
    levels = options.levels if context.budget.batches is None else ()  # a smoke run tries the smallest width alone
    wanted = {each.group.name: _widths(each, rules, (*levels, options.least)) for each in groups}
    with context.progress.bar("sensitivity map", sum(map(len, wanted.values()))) as bar:
        for each in groups:
            name = each.group.name
            known = done.setdefault(name, [])
            bar.advance(len(known))
            for units in wanted[name][len(known) :]:
                removal = {name: each.least_important(each.group.units - units)}
                if not known and broken_without(module, example, removal):
                    wanted[name] = []
                    break
                narrower = copy_module(module)
                remove(narrower, example, removal)
                trial, answers = _try(narrower, units, state, options, context)
                known.append([trial.units, trial.loss, trial.metric])
                write_aside(file, json.dumps(done))
                bar.say(f"{name}: {units} of {each.group.units}, {answers.score.kind.called} {answers.score.text}")
                bar.advance()
    return {
        name: tuple(Trial(int(units), loss, metric) for units, loss, metric in known)
        for name, known in done.items()
        if known and wanted.get(name)
    }


def _widths(each: Ranked, rules: Rules, levels: Sequence[float]) -> list[int]:
    """Numbers of units to try, falling."""
    units = each.group.units
    counts = {rounded(each.group, round(level * units), rules) for level in levels}
    return sorted(counts - {units}, reverse=True)


def _try(
    module: nn.Module, units: int, state: ModelState, options: PruneSearchOptions, context: PassContext
) -> tuple[Trial, Validated]:
    """How `module` validates; leaves it with BatchNorm statistics that were collected anew."""
    reestimate_batch_norm(module, state, context, options.statistics_images, options.batch_size)
    answers = validated(module, state.task, context, options.batch_size)
    return Trial(units, answers.loss, answers.score.value), answers


def _sensitivity(
    whole: Trial, trials: Sequence[Trial], units: int, options: PruneSearchOptions, kind: ScoreKind
) -> Sensitivity:
    by_loss = options.degradation == "loss"
    return Sensitivity.of(
        {
            each.units: each.loss - whole.loss if by_loss else kind.rank(whole.metric) - kind.rank(each.metric)
            for each in trials
        },
        units,
    )


def _require_knowledge(answers: Validated, context: PassContext) -> tuple[str, ...]:
    """Raises `TrainingError` for a model that guesses, whose scores tell nothing; in a smoke run that is a warning."""
    if answers.guess is None:
        return ()
    problem = f"the model {answers.guess.told('validation images')}: there is nothing to search by"
    if context.budget.batches is None:
        raise TrainingError(Problem(problem, "put a pass that trains, such as 'train', before prune-search"))
    return (problem,)


# ---- what is said of it --------------------------------------------------------------------------------------------


def _falling(module: nn.Module, example: Tensor, candidates: Sequence[Candidate]) -> Curve:
    """The share of the operations that is left at each threshold."""
    layers, groups = layers_of(module, example), [each.ranked.group for each in candidates]
    whole = cost_of(layers, {}).macs
    thresholds = thresholds_of(candidates)
    left = [cost_of(layers, lost_channels(groups, removal_at(each, candidates))).macs / whole for each in thresholds]
    return Curve("operations left", tuple(thresholds), tuple(left), "threshold", "share")


def _details(found: Found, metric: str) -> Json:
    """The map: each group's losses and scores by the number of units left."""

    def columns(trials: Sequence[Trial]) -> Json:
        return {
            "units": [each.units for each in trials],
            "loss": [each.loss for each in trials],
            metric: [each.metric for each in trials],
        }

    return {"whole": {"loss": found.whole.loss, metric: found.whole.metric}} | {
        "groups": {name: columns(trials) for name, trials in found.trials.items()}
    }
