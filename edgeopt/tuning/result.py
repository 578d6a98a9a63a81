"""What a study found."""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.pipeline.request import RunResult
from edgeopt.tuning.goals import Reference
from edgeopt.tuning.plan import Study
from edgeopt.tuning.trials import Trial


@dataclass(frozen=True)
class TuneResult:
    """A study that has ended: why it did, its trials, the reference, the best of them, and the best one's run on test
    images; no best one and no run where no files were made. `importances` say how much each parameter decides of what
    is to be least, together 1; empty where too few trials tell.
    """

    study: Study
    trials: tuple[Trial, ...]
    reference: Reference
    best: Trial | None
    run: RunResult | None
    ended: str
    importances: tuple[tuple[str, float], ...] = ()

    @property
    def reaches_goal(self) -> bool:
        """Whether a trial reaches the goal."""
        return self.best is not None and self.best.reaches_goal
