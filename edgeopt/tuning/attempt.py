"""One trial: what its shapes can reach is measured first, and only what can win is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeopt.arrays import Json
from edgeopt.errors import PausedError, Problem, ResourceError, StorageError, UserError, WorkerError, in_a_line
from edgeopt.pipeline import runner
from edgeopt.pipeline.pauses import Pause
from edgeopt.pipeline.request import Beside, RunRequest
from edgeopt.recipe.read import Recipe, parse_recipe
from edgeopt.recipe.stage import JudgedOn
from edgeopt.recipe.tune import Goal, Halving
from edgeopt.report.schema import Report
from edgeopt.tasks.scores import ScoreKind
from edgeopt.tuning.goals import (
    BOUNDS,
    COSTS,
    Figures,
    Reference,
    figures_of,
    missed,
    needs_training,
    objective,
    out_of_reach,
    reference_of,
)
from edgeopt.tuning.halving import Rival, Rung, RungFiles, beaten
from edgeopt.tuning.space import Space, Values, changed
from edgeopt.tuning.trials import Ending, Trial
from edgeopt.workers.bucket import Bucket

SLACK = 0.03
"""By how much of its limit a size may be over where nothing is trained yet: scales and constants differ a little."""


@dataclass(frozen=True)
class Attempts:
    """How trials of one study are run, the recipe as it stands being `written`, without its `[tune]`; it has the values
    `standing`, or None where the space has it not. `beside` says that trials are run side by side.
    """

    written: Mapping[str, Json]
    space: Space
    goal: Goal
    minimize: tuple[str, ...]
    halving: Halving | None
    kinds: tuple[ScoreKind, ...]
    out: Path
    below: str
    plugin_files: tuple[Path, ...]
    standing: Values | None = None
    beside: Beside | None = None
    bucket: Bucket | None = None

    @staticmethod
    def name_of(number: int) -> str:
        """What the run of a trial is called, and its folder below the study's."""
        return f"trial-{number}"

    @property
    def folder(self) -> Path:
        """The study's own folder."""
        return self.out / self.below

    def reference(self) -> Reference:
        """The recipe as it stands, run and judged on validation images."""
        return reference_of(self._report(self._recipe({}, "reference")), self.goal.device)

    def attempt(
        self,
        number: int,
        values: Values,
        reference: Reference,
        earlier: Sequence[Rival],
        say: Callable[[str], None],
    ) -> Trial:
        """One trial, held against `earlier` ones. What a run cannot do, or a crash, is a trial that failed, with its
        reason.
        """
        start = time.perf_counter()
        name = self.name_of(number)
        trial = Trial(number=number, values=values, ending=Ending.FAILED, figures=Figures(), folder=name)
        try:
            recipe = self._recipe(values, name)
            say("shapes")
            trial = self._shaped(trial, recipe, reference)
            if trial.ending is not Ending.REFUSED:
                say("training")
                trial = self._compared(trial, recipe, earlier)
            if trial.ending is Ending.FAILED:
                figures = figures_of(self._report(recipe), self.goal.device, reference)
                if figures.failed is not None:
                    raise UserError(Problem(figures.failed))
                trial = self._judged(trial, Ending.DONE, figures, reference)
        except StorageError:  # no trial is to blame for a full disk, and the study goes on when it is not
            raise
        except (UserError, WorkerError) as error:
            trial = replace(trial, ending=Ending.FAILED, reason=in_a_line(error))
        without = self.bucket.given_up if self.bucket else ""
        return replace(trial, seconds=time.perf_counter() - start, without_bucket=without)

    def _compared(self, trial: Trial, recipe: Recipe, earlier: Sequence[Rival]) -> Trial:
        """The trial with its scores at the rungs, stopped at the first one where others are ahead."""
        if self.halving is None:
            return trial
        files = RungFiles(self.folder)
        known = files.read(trial)
        for place, rung in enumerate(self.halving.rungs):
            if place >= len(known):  # else an earlier session was there, and has trained on since
                try:
                    self._report(recipe, pause=Pause(rung, self.space.first_pass))
                    return trial  # it was too short for this rung, or others have trained it already
                except PausedError as paused:
                    known = (*known, Rung(paused.epochs, paused.score))
                    files.write(trial, known)
            trial = replace(trial, rungs=(*trial.rungs, known[place].score))
            reason = beaten(trial, earlier, self.halving.keep, self.kinds[0])
            if reason is not None:
                unknown = tuple(None for _ in self.minimize)
                reason = f"after {known[place].epochs} epochs: {reason}"
                return replace(trial, ending=Ending.BEATEN, objectives=unknown, reason=reason)
        return trial

    def _shaped(self, trial: Trial, recipe: Recipe, reference: Reference) -> Trial:
        """The trial with what its shapes cost, refused where that cannot reach the goal."""
        if not self._asks_shapes or trial.values == self.standing:  # which was run as the reference
            return replace(trial, costs=tuple(None for _ in self.minimize))
        figures = figures_of(self._report(recipe, shapes=True), self.goal.device, reference)
        if figures.failed is not None:
            raise UserError(Problem(figures.failed))
        trial = replace(trial, costs=tuple(figures.of(name) if name in COSTS else None for name in self.minimize))
        beyond = out_of_reach(self.goal, figures, SLACK)
        if not beyond:
            return trial
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
        """Whether shapes decide a bound of the goal, or against which trials one is held, and something besides needs a
        training.
        """
        decides = any(getattr(self.goal, name) is not None for name in BOUNDS)
        compares = self.halving is not None and any(name in COSTS for name in self.minimize)
        return (decides or compares) and needs_training(self.goal, self.minimize)

    def _report(self, recipe: Recipe, *, shapes: bool = False, pause: Pause | None = None) -> Report:
        request = RunRequest(
            recipe,
            devices=self.goal.device is not None,
            out=self.out,
            plugin_files=self.plugin_files,
            below=self.below,
            judged_on=JudgedOn.VALIDATION,
            shapes=shapes,
            pause=pause,
            beside=self.beside,
            bucket=self.bucket,
        )
        try:
            return _reported(request)
        except ResourceError:  # what took the memory, or killed the process, may be gone; finished stages are kept
            return _reported(request)

    def _recipe(self, values: Values, name: str) -> Recipe:
        written = changed(self.written, self.space, values)
        return parse_recipe({**written, "name": name})


def _reported(request: RunRequest) -> Report:
    """The report of a run whose files were all made."""
    result = runner.run(request)
    for failure in result.failures:
        raise failure
    return result.report
