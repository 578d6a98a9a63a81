"""One trial: what its shapes can reach is measured first, and only what can win is trained."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgeopt.errors import Problem, UserError, WorkerError, in_a_line
from edgeopt.pipeline import runner
from edgeopt.pipeline.request import RunRequest
from edgeopt.recipe.read import Recipe, parse_recipe
from edgeopt.recipe.stage import JudgedOn
from edgeopt.recipe.tune import Goal
from edgeopt.report.schema import Report
from edgeopt.tasks.scores import ScoreKind
from edgeopt.tuning.goals import (
    Figures,
    Reference,
    figures_of,
    missed,
    needs_training,
    objective,
    out_of_reach,
    reference_of,
)
from edgeopt.tuning.space import Space, Values, changed
from edgeopt.tuning.trials import Ending, Trial
from edgeopt.tuning.written import plain

SLACK = 0.03
"""By how much of its limit a size may be over where nothing is trained yet: scales and constants differ a little."""

_LONGEST = 100  # letters of a recipe's name


@dataclass(frozen=True)
class Attempts:
    """How trials of one study are run: `values` is the recipe as it stands, without its `[tune]`."""

    recipe: Recipe
    space: Space
    goal: Goal
    minimize: tuple[str, ...]
    kinds: tuple[ScoreKind, ...]
    out: Path
    below: str
    plugin_files: tuple[Path, ...]

    def reference(self) -> Reference:
        """The recipe as it stands, run and judged on validation images."""
        return reference_of(self._report(self._recipe({}, "reference")), self.goal.device)

    def attempt(self, number: int, values: Values, reference: Reference, say: Callable[[str], None]) -> Trial:
        """One trial. What a run cannot do, or a crash, is a trial that failed, with its reason."""
        start = time.perf_counter()
        name = f"trial-{number}"
        trial = Trial(number=number, values=values, ending=Ending.FAILED, figures=Figures(), folder=name)
        try:
            recipe = self._recipe(values, name)
            say("shapes")
            refused = self._refused(recipe, reference, trial)
            if refused is None:
                say("training")
                figures = figures_of(self._report(recipe), self.goal.device, reference)
                if figures.failed is not None:
                    raise UserError(Problem(figures.failed))
                refused = self._judged(trial, Ending.DONE, figures, reference)
        except (UserError, WorkerError) as error:
            refused = replace(trial, reason=in_a_line(error))
        return replace(refused, seconds=time.perf_counter() - start)

    def _refused(self, recipe: Recipe, reference: Reference, trial: Trial) -> Trial | None:
        """The trial as refused by what its shapes reach; None where it may be worth its training."""
        if not self._asks_shapes:
            return None
        figures = figures_of(self._report(recipe, shapes=True), self.goal.device, reference)
        if figures.failed is not None:
            raise UserError(Problem(figures.failed))
        beyond = out_of_reach(self.goal, figures, SLACK)
        if not beyond:
            return None
        told = "; ".join(each.told for each in beyond)
        known = replace(figures, scores={}, agreement=None)  # few images tell nothing of what is learned
        judged = self._judged(trial, Ending.REFUSED, known, reference)
        return replace(judged, reason=f"its shapes cannot reach the goal: {told}")

    def _judged(self, trial: Trial, ending: Ending, figures: Figures, reference: Reference) -> Trial:
        return replace(
            trial,
            ending=ending,
            figures=figures,
            objectives=tuple(objective(name, figures, reference, self.kinds) for name in self.minimize),
            missed=missed(self.goal, figures, reference, self.kinds),
        )

    @property
    def _asks_shapes(self) -> bool:
        """Whether the goal has a bound that shapes decide, and something besides that needs a training."""
        bounds = ("bytes", "memory_bytes", "size_ratio", "latency_ms", "latency_ratio")
        return any(getattr(self.goal, name) is not None for name in bounds) and needs_training(self.goal, self.minimize)

    def _report(self, recipe: Recipe, *, shapes: bool = False) -> Report:
        request = RunRequest(
            recipe,
            devices=self.goal.device is not None,
            out=self.out,
            plugin_files=self.plugin_files,
            below=self.below,
            judged_on=JudgedOn.VALIDATION,
            shapes=shapes,
        )
        result = runner.run(request)
        for failure in result.failures:
            raise failure
        return result.report

    def _recipe(self, values: Values, name: str) -> Recipe:
        written = changed(plain(self.recipe), self.space, values)
        return parse_recipe({**written, "name": name})
