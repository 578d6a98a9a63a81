"""Which of a study's trials its sampler looks at: all of them while they are few, then those from which there is to
learn.

A sampler that models what trials reached takes time with each trial that it knows, at each proposal: of a long study it
would look at a hundred thousand to find that all but some dozens are far from the best.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeopt.tuning.trials import Ending, Trial


class Memory:
    """At most `most` trials, in the order of their numbers; without, all.

    What it holds depends on the trials that it met alone, and not on where a study was killed and went on.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._trials: list[Trial] = []

    @property
    def trials(self) -> Sequence[Trial]:
        """The trials that it holds."""
        return self._trials

    def meet(self, trial: Trial) -> bool:
        """Takes in a trial; returns whether it forgot others for that: half stays of the last, half of it the best."""
        self._trials.append(trial)
        if self._most is None or len(self._trials) < self._most:
            return False
        last = self._trials[-self._most // 2 :]
        before = self._trials[: -self._most // 2]
        self._trials = [*_nearest(before, self._most // 4), *last]
        return True


def _nearest(trials: Sequence[Trial], count: int) -> list[Trial]:
    """Those that the fewest others are ahead of: nearer to the goal, or as near and better in all that is to be least;
    in the order of their numbers.
    """
    import numpy as np  # only where a study is long

    able = [each for each in trials if each.ending is not Ending.FAILED]
    if len(able) <= count:
        return able
    excess = np.array([each.excess for each in able])
    least = np.array([[np.inf if each is None else each for each in trial.objectives] for trial in able])
    as_good = (least[:, None] <= least[None]).all(axis=2)
    better = as_good & ~as_good.T
    ahead = (excess[:, None] < excess[None]) | ((excess[:, None] == excess[None]) & better)
    order = np.argsort(ahead.sum(axis=0), kind="stable")
    return [able[place] for place in sorted(order[:count])]
