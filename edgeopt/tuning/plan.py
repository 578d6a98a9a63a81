"""What a study would do: its space and its goal, with everything that is wrong with them. Nothing is run here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeopt.errors import Location, Problem, RecipeError, UserError, did_you_mean
from edgeopt.fingerprint import digest
from edgeopt.options import to_json
from edgeopt.plugins.registry import Registry, load_registry
from edgeopt.recipe.energy import ENERGY, unasked
from edgeopt.recipe.own_plugins import own_plugin_files
from edgeopt.recipe.plan import Plan, make_plan
from edgeopt.recipe.read import Recipe, parse_recipe, read_recipe
from edgeopt.recipe.tune import TuneSettings
from edgeopt.tasks.scores import DROP, ScoreKind
from edgeopt.tuning.goals import COSTS
from edgeopt.tuning.request import TuneRequest
from edgeopt.tuning.space import Parameter, Space, Values, changed, read_space
from edgeopt.tuning.written import plain

_TABLE = """\
add a [tune] table, as in
[tune]
goal = { accuracy_drop = 0.01 }
minimize = "bytes"

[tune.space]
"passes.0.epochs" = { low = 1, high = 20 }"""


_NOT_TRIED = ("trials", "minutes", "workers", "ray")  # of a study: how long it works, and who does


@dataclass(frozen=True)
class Study:
    """A study that can be made. `standing` are the values of the recipe as it stands, None where it is not in the
    space, and `plan` is what a run of it would do. Results go to `folder`.
    """

    recipe: Recipe
    settings: TuneSettings
    space: Space
    plan: Plan
    standing: Values | None
    folder: Path

    @property
    def kinds(self) -> tuple[ScoreKind, ...]:
        """The scores of the recipe's task."""
        return self.plan.task.score_kinds

    @property
    def seed(self) -> int:
        """The seed of the proposals."""
        return self.recipe.seed if self.settings.seed is None else self.settings.seed

    @property
    def key(self) -> str:
        """By what the trials of one study are told from those of another, whatever time, trials and workers it is
        given.
        """
        asked = {name: value for name, value in to_json(self.settings).items() if name not in _NOT_TRIED}
        return digest([plain(self.recipe), asked, self.seed])


def plan_study(request: TuneRequest) -> Study:
    """Finds everything that can be wrong with a study before anything runs.

    Raises `RecipeError` with all problems, each with its line: of the recipe as it stands, of the space, of each of its
    ends alone, and of the goal.
    """
    recipe = read_recipe(request.recipe, request.overrides)
    if recipe.tune is None:
        raise RecipeError(Problem(f"{request.recipe}: it has no [tune] table", _TABLE))
    settings = recipe.tune
    registry = load_registry((*own_plugin_files(recipe), *request.plugin_files))
    plan = make_plan(recipe, registry, devices=settings.goal.device is not None)
    space, problems = read_space(recipe, settings.space, registry)
    problems += _unfit_goal(recipe, settings, plan)
    problems += _unfit_halving(recipe, settings)
    if not problems:
        problems += _unfit_ends(recipe, space, registry)
    if problems:
        raise RecipeError(*dict.fromkeys(problems))
    folder = request.out / f"{recipe.name}-tune"
    return Study(recipe, settings, space, plan, space.standing(plan.resolved()), folder)


def _unfit_goal(recipe: Recipe, settings: TuneSettings, plan: Plan) -> Iterator[Problem]:
    """What the goal, or what is to be least, names that there is not."""
    names = [kind.name for kind in plan.task.score_kinds]
    gates = [*names, *(f"{name}{DROP}" for name in names)]
    for name in settings.goal.scores:
        if name not in gates:
            known = [*gates, *(each for each in type(settings.goal).model_fields if each != "device")]
            hint = did_you_mean(name, known) or f"scores of {plan.task.name} are {', '.join(names)}"
            yield Problem(f"tune.goal: there is no {name!r}", hint, recipe.locate("tune", "goal", name))
    for name in settings.least:
        least = [*COSTS, *(f"{each}{DROP}" for each in names)]
        if name not in least:
            hint = did_you_mean(name, least) or f"it is one of {', '.join(least)}"
            yield Problem(f"tune.minimize: there is no {name!r}", hint, recipe.locate("tune", "minimize"))
    if not settings.least or len(set(settings.least)) < len(settings.least):
        what = "names something twice" if settings.least else "is empty"
        hint = 'as in minimize = "bytes", or ["bytes", "latency_ms"]'
        yield Problem(f"tune.minimize {what}", hint, recipe.locate("tune", "minimize"))
    yield from _unmeasured_energy(recipe, settings)
    device = settings.goal.device
    called = [each.called for each in recipe.devices]
    if device is not None and device not in called:
        hint = did_you_mean(device, called) or "describe it in [[devices]]"
        yield Problem(f"tune.goal: there is no device {device!r}", hint, recipe.locate("tune", "goal", "device"))


def _unmeasured_energy(recipe: Recipe, settings: TuneSettings) -> Iterator[Problem]:
    """A bound on energy, or a wish for less, where nobody measures it."""
    is_here = settings.goal.device is None
    if recipe.measure.energy_here if is_here else recipe.measure.energy_there:
        return
    keys: list[tuple[str, ...]] = [("tune", "goal", ENERGY)] if settings.goal.energy_mj is not None else []
    keys += [("tune", "minimize")] if ENERGY in settings.least else []
    for key in keys:
        message, hint = unasked(".".join(key), needs_this_machine=is_here)
        yield Problem(message, hint, recipe.locate(*key))


def _unfit_halving(recipe: Recipe, settings: TuneSettings) -> Iterator[Problem]:
    """Trials that are to pause, where a pause would have to end several processes."""
    trainer = recipe.trainer
    if settings.halving is not None and (trainer.devices != 1 or trainer.num_nodes > 1):
        message = "tune.halving: a training on several devices cannot pause"
        hint = "train on one with devices = 1 in [trainer], or leave out [tune.halving]"
        yield Problem(message, hint, recipe.locate("tune", "halving"))


def _unfit_ends(recipe: Recipe, space: Space, registry: Registry) -> Iterator[Problem]:
    """What a plan refuses of each parameter's ends alone, with all others as the recipe has them."""
    values = plain(recipe)
    for each in space.parameters:
        refused = [
            (end, problem) for end in each.scale.ends for problem in _refused(values, space, each, end, registry)
        ]
        for end, problem in itertools.islice(refused, 3):
            hint = problem.hint and f"{problem.message} ({problem.hint})"
            message = f"tune.space: {each.name!r} cannot be {end!r}"
            yield Problem(message, hint or problem.message, _line_of(recipe, each))


def _refused(
    values: dict[str, object], space: Space, parameter: Parameter, end: object, registry: Registry
) -> list[Problem]:
    try:
        make_plan(parse_recipe(changed(values, space, {parameter.name: end})), registry, devices=False)
    except UserError as error:
        return list(error.problems)
    return []


def _line_of(recipe: Recipe, parameter: Parameter) -> Location | None:
    quoted = recipe.locate("tune", "space", parameter.name)
    nested = recipe.locate("tune", "space", *parameter.name.split("."))
    return max((each for each in (quoted, nested) if each), key=lambda each: each.line or 0, default=None)
