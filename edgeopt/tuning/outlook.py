"""What the trials of a study would cost, and which recipes of its space no plugin takes: by plans alone. Light."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeopt.arrays import Json
from edgeopt.errors import UserError
from edgeopt.pipeline.pauses import trainings_of
from edgeopt.recipe.plan import make_plan
from edgeopt.recipe.read import parse_recipe
from edgeopt.tuning.plan import Study
from edgeopt.tuning.space import Choices, Range, Space, Values, changed
from edgeopt.tuning.written import plain
from edgeopt.workers.store import Store

MOST = 120
"""Recipes that are looked at: a plan takes some hundredths of a second."""


@dataclass(frozen=True)
class Refusal:
    """What some recipes would end with before anything runs: how many, and the values of one of them."""

    reason: str
    recipes: int
    values: Values


@dataclass(frozen=True)
class Outlook:
    """What was seen of `recipes` in a space, all of it where `is_whole`.

    `least` and `most` are the epochs of one. Trained one by one, those that can run take `alone` epochs, and `together`
    where each training is made once; `kept` of its `trainings` are in the store already.
    """

    recipes: int
    is_whole: bool
    least: int
    most: int
    alone: int
    together: int
    trainings: int
    kept: int
    refusals: tuple[Refusal, ...]

    @property
    def refused(self) -> int:
        """How many of the recipes cannot run."""
        return sum(each.recipes for each in self.refusals)


def outlook_of(study: Study, store: Store, most: int = MOST) -> Outlook:
    """Plans every recipe of a study's space, or `most` that are drawn from it."""
    drawn, is_whole = _recipes(study, most)
    written = plain(study.recipe)
    trained: dict[str, int] = {}
    epochs: list[int] = []
    refused: dict[str, list[Values]] = {}
    for values in drawn:
        try:
            recipe = parse_recipe(changed(written, study.space, values))
            plan = make_plan(recipe, study.plan.registry, devices=study.settings.goal.device is not None)
        except UserError as error:
            refused.setdefault(error.problems[0].message, []).append(values)
            continue
        own = {stage.key: each for stage, each in trainings_of(plan)}
        trained |= own
        epochs.append(sum(own.values()))
    return Outlook(
        recipes=len(drawn),
        is_whole=is_whole,
        least=min(epochs, default=0),
        most=max(epochs, default=0),
        alone=sum(epochs),
        together=sum(trained.values()),
        trainings=len(trained),
        kept=sum(store.has(key) for key in trained),
        refusals=tuple(Refusal(reason, len(each), each[0]) for reason, each in refused.items()),
    )


def _recipes(study: Study, most: int) -> tuple[Sequence[Values], bool]:
    """The values of recipes to look at, and whether they are all that there are."""
    count = study.space.count
    if count is not None and count <= most:
        return list(_every(study.space)), True
    source = random.Random(study.seed)
    return [_drawn(study.space, source) for _ in range(most)], False


def _drawn(space: Space, source: random.Random) -> Values:
    """One recipe of a space."""
    return _without_absent(space, {each.name: _any_of(each.scale, source) for each in space.parameters})


def _every(space: Space) -> Iterator[Values]:
    """All recipes of a space that has a number of them, each once."""
    named = [[(each.name, value) for value in _all_of(each.scale)] for each in space.parameters]
    chosen = (_without_absent(space, dict(values)) for values in itertools.product(*named))
    return iter({tuple(values.items()): values for values in chosen}.values())


def _without_absent(space: Space, values: Values) -> Values:
    """Without the options of passes that are left out."""
    return {each.name: values[each.name] for each in space.parameters if each.needs is None or values[each.needs]}


def _all_of(scale: Choices | Range) -> Sequence[Json]:
    if isinstance(scale, Choices):
        return scale.values
    return [_at(scale, place) for place in range(scale.count or 0)]


def _any_of(scale: Choices | Range, source: random.Random) -> Json:
    if isinstance(scale, Choices):
        return source.choice(scale.values)
    if scale.is_log:
        return scale.value(math.exp(source.uniform(math.log(scale.low), math.log(scale.high))))
    if scale.count is not None:
        return _at(scale, source.randrange(scale.count))
    return scale.value(source.uniform(scale.low, scale.high))


def _at(scale: Range, place: int) -> Json:
    """A value of a range that has a number of them, as the recipe would write it: 0.2 and three times 0.1 are 0.5."""
    return scale.value(round(scale.low + place * (scale.step or 1), 12))
