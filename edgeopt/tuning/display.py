"""A study while it works: a bar over its trials with the time left and the best so far, and a line for each trial."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from edgeopt.tuning.figures import values_told
from edgeopt.tuning.request import TuneRequest
from edgeopt.tuning.space import Values
from edgeopt.tuning.terminal import outcome
from edgeopt.tuning.trials import Trial
from edgeopt.tuning.winner import best

if TYPE_CHECKING:
    from edgeopt.tuning.plan import Study


class StudyDisplay:
    """Shows a study on a console."""

    def __init__(self, console: Console, study: Study, request: TuneRequest) -> None:
        self._console = console
        self._study = study
        self._progress = Progress(
            TextColumn("trials"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[best]}"),
            TextColumn("[dim]{task.fields[doing]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("trials", total=request.trials or study.settings.trials, best="", doing="")

    def __enter__(self) -> StudyDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, trials: Sequence[Trial]) -> None:
        """The trials of earlier sessions."""
        if trials:
            self._console.print(f"{len(trials)} trials were made before", highlight=False)
            self._progress.update(self._task, completed=len(trials), best=self._best(best(trials)))

    def say(self, doing: str) -> None:
        """What is being done now."""
        self._progress.update(self._task, doing=doing)

    def trial(self, number: int, values: Values) -> None:
        """A trial begins."""
        self.say(f"trial {number}: {values_told(values)}")

    def ended(self, trial: Trial, found: Trial | None) -> None:
        """A trial has ended."""
        line = f"trial {trial.number:<4} {values_told(trial.values)}  {outcome(trial, self._study)}"
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._progress.update(self._task, advance=1, best=self._best(found), doing="")

    def _best(self, found: Trial | None) -> str:
        if found is None:
            return ""
        what = "best" if found.reaches_goal else "nearest"
        return f"{what}: trial {found.number}, {outcome(found, self._study)}"
