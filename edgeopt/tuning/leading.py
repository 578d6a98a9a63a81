"""`winner.toml` and `pareto.csv`: what is best so far, on disk, while a study works."""

from __future__ import annotations

import time

from edgeopt.files import write_aside
from edgeopt.tuning.plan import Study
from edgeopt.tuning.trials import Trial, Trials
from edgeopt.tuning.winner import PARETO, WINNER, Leaders, front_csv, winner_text

_REST = 20  # times as long as they took to write, files stay as they are


class LeaderFiles:
    """The files of a study, whose `trials` are added in their order.

    They are written after each trial, unless trials are so short, or a front is so long, that a study would do little
    else; and at the end, which is to be said by `write`.
    """

    def __init__(self, study: Study, trials: Trials) -> None:
        self._study, self._trials = study, trials
        self._leaders = Leaders(trials.all)
        self._not_before_s = 0.0

    @property
    def best(self) -> Trial | None:
        """The best trial so far."""
        return self._leaders.best

    def add(self, trial: Trial) -> None:
        """One more trial has ended."""
        self._leaders.add(trial)
        if time.perf_counter() >= self._not_before_s:
            self.write()

    def write(self) -> None:
        """Writes the files as they are to be now."""
        start_s = time.perf_counter()
        if self.best is not None:
            text = winner_text(self._study, self.best, len(self._trials.all))
            write_aside(self._study.folder / WINNER, text)
        write_aside(self._study.folder / PARETO, front_csv(self._study, self._leaders.front))
        end_s = time.perf_counter()
        self._not_before_s = end_s + _REST * (end_s - start_s)
