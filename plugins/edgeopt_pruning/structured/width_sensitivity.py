"""How much a network minds when one group of channels becomes narrower, all others left as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from edgeopt_pruning.structured.choice import Ranked, Rules, rounded
from edgeopt_pruning.structured.groups import Removal


@dataclass(frozen=True)
class Sensitivity:
    """The degradation of the network, measured with so many of the group's units left; `units` rise up to all of them.

    Between measurements it follows a straight line. It never falls when more units go: where chance says so, the larger
    degradation with more units left counts.
    """

    units: tuple[int, ...]
    degradation: tuple[float, ...]

    @staticmethod
    def of(measured: Mapping[int, float], units: int) -> Sensitivity:
        """From degradations by the number of units left; with all `units` it is 0."""
        falling = sorted({**measured, units: 0.0}.items(), reverse=True)
        worst = accumulate((max(0.0, degradation) for _, degradation in falling), max)
        return Sensitivity(tuple(count for count, _ in reversed(falling)), tuple(reversed(list(worst))))

    def at(self, units: int) -> float:
        """The degradation with `units` left."""
        return float(np.interp(units, self.units, self.degradation))


@dataclass(frozen=True)
class Candidate:
    """A group, the order in which its units go, the numbers of units it may keep, and what each costs the network."""

    ranked: Ranked
    kept: tuple[int, ...]
    degradation: tuple[float, ...]

    @staticmethod
    def of(ranked: Ranked, rules: Rules, sensitivity: Sensitivity) -> Candidate:
        """All widths that the rules allow, and that lie between those that were measured."""
        group = ranked.group
        kept = sorted({rounded(group, count, rules) for count in range(sensitivity.units[0], group.units + 1)})
        return Candidate(ranked, tuple(kept), tuple(sensitivity.at(count) for count in kept))

    def left_at(self, threshold: float) -> int:
        """The smallest number of units left with which the network degrades no more than `threshold`."""
        return next(count for count, loss in zip(self.kept, self.degradation, strict=True) if loss <= threshold)


def removal_at(threshold: float, candidates: Sequence[Candidate]) -> Removal:
    """Each group as narrow as it may be for itself when the network may degrade by `threshold`."""
    left = ((each.ranked, each.left_at(threshold)) for each in candidates)
    return {
        ranked.group.name: ranked.least_important(ranked.group.units - kept)
        for ranked, kept in left
        if kept < ranked.group.units
    }


def thresholds_of(candidates: Sequence[Candidate]) -> list[float]:
    """The thresholds at which a group becomes narrower, rising."""
    return sorted({degradation for each in candidates for degradation in each.degradation})


def smallest_threshold(
    candidates: Sequence[Candidate], cost: Callable[[Removal], float], most: float
) -> tuple[float, Removal, float]:
    """The smallest threshold whose removal costs no more than `most`, that removal, and what it costs.

    Found by halving the thresholds that make a difference. Where the largest costs more than `most`, that one is
    returned.
    """
    thresholds = thresholds_of(candidates)
    best = removal_at(thresholds[-1], candidates)
    best_cost = cost(best)
    if best_cost > most:
        return thresholds[-1], best, best_cost
    low, high = 0, len(thresholds) - 1  # the threshold at `high` meets the budget
    while low < high:
        middle = (low + high) // 2
        removal = removal_at(thresholds[middle], candidates)
        found = cost(removal)
        if found <= most:
            high, best, best_cost = middle, removal, found
        else:
            low = middle + 1
    return thresholds[high], best, best_cost
