"""`edgeopt tune`: proposes, tries, keeps, and names the winner.

```
study ─▶ reference ─▶ ( proposal ─▶ shapes measured ─▶ trained, judged on validation ─▶ kept ) … ─▶ winner, on test
```

Everything that a trial has in common with others comes from the store, so a study that was killed goes on in the trial
where it was.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.errors import Problem, StorageError, UserError
from edgeopt.files import storage_errors, write_aside
from edgeopt.pipeline import runner
from edgeopt.pipeline.request import RunRequest
from edgeopt.pipeline.runner import RunResult
from edgeopt.recipe.read import parse_recipe
from edgeopt.tuning.attempt import Attempts
from edgeopt.tuning.goals import Reference
from edgeopt.tuning.halving import RungFile
from edgeopt.tuning.journal import FILE as JOURNAL
from edgeopt.tuning.journal import Journal
from edgeopt.tuning.plan import Study, plan_study
from edgeopt.tuning.proposals import Proposer
from edgeopt.tuning.request import TuneRequest
from edgeopt.tuning.result import TuneResult
from edgeopt.tuning.trials import FILE, Ending, Trial, Trials
from edgeopt.tuning.winner import PARETO, WINNER, best, front_csv, winner_recipe, winner_text

if TYPE_CHECKING:  # rich is loaded when something is shown
    from rich.console import Console

    from edgeopt.tuning.display import StudyDisplay

_REPEATS = 20  # proposals of known recipes in a row, after which nothing new is expected
_LOCK = ".lock"


def tune(request: TuneRequest, console: Console | None = None) -> TuneResult:
    """Makes a study, or goes on with one that was interrupted or is to have more trials.

    After each trial, `trials.jsonl`, `winner.toml` and `pareto.csv` in `out/NAME-tune` say how far it is. Raises
    `RecipeError` for everything that can be known to be wrong before, and whatever the run of the recipe as it stands
    raises; a trial that fails takes no other with it.
    """
    from rich.console import Console as Shown  # shown things are loaded only when there is something to show

    from edgeopt.tuning.display import StudyDisplay

    study = plan_study(request)
    with storage_errors(study.folder):
        study.folder.mkdir(parents=True, exist_ok=True)
    inside = storage_errors(study.folder, inside=request.out)
    with inside, _alone(study.folder), StudyDisplay(console or Shown(quiet=True), study, request) as display:
        if request.fresh:
            for name in (FILE, JOURNAL):
                (study.folder / name).unlink(missing_ok=True)
            RungFile(study.folder).forget()
        return _Tuning(study, request, display).run()


@dataclass(frozen=True)
class _Tuning:
    """One study on its way."""

    study: Study
    request: TuneRequest
    display: StudyDisplay

    def run(self) -> TuneResult:
        settings, study = self.study.settings, self.study
        trials = Trials(study.folder, study.key)
        self.display.begin(trials.all)
        self.display.say("the recipe as it stands")
        reference = self._attempts.reference()
        proposer = Proposer(study.space, len(settings.least), settings.sampler, study.seed, study.standing)
        for trial in trials.all:
            proposer.tell(trial)
        journal = Journal(study.folder, study.recipe.name, study.space, settings.least)
        ended = self._try(trials, proposer, reference, journal)
        self._keep(trials.all)
        found = best(trials.all)
        run = self._on_test(found) if found is not None else None
        result = TuneResult(study, trials.all, reference, found, run, ended, proposer.importances())
        from edgeopt.tuning.page import PAGE, render_page  # matplotlib and jinja2

        write_aside(study.folder / PAGE, render_page(result))
        return result

    def _try(self, trials: Trials, proposer: Proposer, reference: Reference, journal: Journal) -> str:
        """Trials until there are enough; returns why there are no more."""
        most = self.request.trials or self.study.settings.trials
        minutes = self.request.minutes or self.study.settings.minutes
        start = time.perf_counter() - sum(each.seconds for each in trials.all)
        repeats = 0
        journal.add(trials.all)
        while len(trials.all) < most:
            if minutes is not None and time.perf_counter() - start > 60 * minutes:
                return f"{minutes:g} minutes are over"
            if _tried_all(self.study, trials.all):
                return "every recipe of the space was tried"
            number = len(trials.all)
            values = proposer.propose(number)
            same = next((each for each in trials.all if each.values == values), None)
            repeats = repeats + 1 if same else 0
            if repeats > _REPEATS:
                return f"the last {_REPEATS} proposals were known already"
            if same:
                known = same.ending in (Ending.FAILED, Ending.BEATEN)
                ending = same.ending if known else Ending.REPEATED
                trial = replace(same, number=number, ending=ending, seconds=0.0)
            else:
                self.display.trial(number, values)
                trial = self._attempts.attempt(number, values, reference, trials.all, self.display.say)
            trial = replace(trial, proposer=proposer.remembered())
            trials.add(trial)
            proposer.tell(trial)
            self._keep(trials.all)
            journal.add(trials.all)
            self.display.ended(trial, best(trials.all))
            self._tidy(trial)
        return f"{most} trials are done"

    @property
    def _attempts(self) -> Attempts:
        study = self.study
        return Attempts(
            recipe=study.recipe,
            space=study.space,
            goal=study.settings.goal,
            minimize=study.settings.least,
            halving=study.settings.halving,
            kinds=study.kinds,
            out=self.request.out,
            below=study.folder.name,
            plugin_files=self.request.plugin_files,
        )

    def _keep(self, trials: tuple[Trial, ...]) -> None:
        """What is best so far, on disk."""
        found = best(trials)
        if found is not None:
            write_aside(self.study.folder / WINNER, winner_text(self.study, found, len(trials)))
        write_aside(self.study.folder / PARETO, front_csv(self.study, trials))

    def _tidy(self, trial: Trial) -> None:
        """Files that were made for their shapes are of no further use."""
        if trial.folder is not None:
            shutil.rmtree(self.study.folder / f"{trial.folder}-smoke", ignore_errors=True)

    def _on_test(self, trial: Trial) -> RunResult:
        """The winner, run like any recipe: here its files see test images for the first time."""
        self.display.say(f"trial {trial.number}, on test images")
        recipe = parse_recipe(winner_recipe(self.study, trial))
        request = RunRequest(recipe, out=self.request.out, plugin_files=self.request.plugin_files)
        return runner.run(request)


def _tried_all(study: Study, trials: tuple[Trial, ...]) -> bool:
    count = study.space.count
    return count is not None and len({json.dumps(each.values, sort_keys=True) for each in trials}) >= count


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds a study, so that two do not add to the same trials; the system lets go of it when the process dies."""
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            hint = "wait for it, or name another folder with --out"
            raise UserError(Problem(f"{folder}: another `edgeopt tune` works on this study", hint)) from error
        except OSError as error:
            raise StorageError(f"{folder}: it cannot be locked: {error.strerror}") from error
        yield
