"""A study while it works: a bar over its trials with the time left and the best so far, a line for each trial on its
way, and one that stays for each that has ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from edgeopt.tuning.figures import values_told
from edgeopt.tuning.request import TuneRequest
from edgeopt.tuning.sharing import notes
from edgeopt.tuning.space import Values
from edgeopt.tuning.terminal import outcome
from edgeopt.tuning.trials import Trial
from edgeopt.tuning.winner import best

if TYPE_CHECKING:
    from edgeopt.tuning.plan import Study


_SHOWN = 16  # trials on their way; a cluster has more than a terminal has lines


class _Trials(Progress):
    """The bar, and below it the lines of the trials on their way, which are asked for when they are drawn."""

    lines: Callable[[], Iterable[str]] = tuple

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        for line in self.lines():
            yield Text(line, style="dim", no_wrap=True, overflow="ellipsis")


class StudyDisplay:
    """Shows a study on a console; several threads may tell it what trials do."""

    def __init__(self, console: Console, study: Study, request: TuneRequest) -> None:
        self._console = console
        self._study = study
        self._lock = threading.Lock()
        self._on_the_way: dict[int, tuple[str, str]] = {}
        self._is_without = False
        self._progress = _Trials(
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
        self._progress.lines = self._lines
        self._task = self._progress.add_task("trials", total=request.trials or study.settings.trials, best="", doing="")

    def __enter__(self) -> StudyDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, trials: Sequence[Trial]) -> None:
        """The trials of earlier sessions, and what to think twice about."""
        for note in notes(self._study.recipe, self._study.settings):
            self._console.print(f"note  {note}", markup=False, soft_wrap=True, highlight=False)
        if trials:
            self._console.print(f"{len(trials)} trials were made before", highlight=False)
            self._progress.update(self._task, completed=len(trials), best=self._best(best(trials)))

    def say(self, doing: str) -> None:
        """What is being done now."""
        self._progress.update(self._task, doing=doing)

    def trial(self, number: int, values: Values) -> None:
        """A trial begins."""
        self._show(number, values_told(values), "")

    def doing(self, number: int, what: str) -> None:
        """What a trial on its way does now."""
        if number in self._on_the_way:
            self._show(number, self._on_the_way[number][0], what)

    def ended(self, trial: Trial, found: Trial | None) -> None:
        """A trial has ended, and all before it."""
        with self._lock:
            self._on_the_way.pop(trial.number, None)
        self.without(trial.without_bucket)
        line = f"trial {trial.number:<4} {values_told(trial.values)}  {outcome(trial, self._study)}"
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._progress.update(self._task, advance=1, best=self._best(found))

    def without(self, why: str) -> None:
        """A bucket was given up, if there is a reason; that is said once."""
        if why and not self._is_without:
            self._is_without = True
            self._console.print(f"note  {why}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    def _show(self, number: int, told: str, doing: str) -> None:
        with self._lock:
            self._on_the_way[number] = (told, doing)

    def _lines(self) -> list[str]:
        with self._lock:
            ways = sorted(self._on_the_way.items())
        lines = [f"  trial {number:<4} {told}  {doing}" for number, (told, doing) in ways[:_SHOWN]]
        return lines + [f"  and {len(ways) - _SHOWN} more"] * (len(ways) > _SHOWN)

    def _best(self, found: Trial | None) -> str:
        if found is None:
            return ""
        what = "best" if found.reaches_goal else "nearest"
        return f"{what}: trial {found.number}, {outcome(found, self._study)}"
