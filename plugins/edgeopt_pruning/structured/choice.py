"""Which channels go: the least important ones, as few as a budget allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeopt_pruning.lamp import lamp_scores
from edgeopt_pruning.structured.groups import ChannelGroup, Removal

Ranking = Literal["local", "global", "isomorphic", "lamp"]


@dataclass(frozen=True)
class Ranked:
    """A group and how important each of its units is, float (units,)."""

    group: ChannelGroup
    importance: NDArray[np.float64]

    def least_important(self, count: int) -> tuple[int, ...]:
        """The channels of the `count` units that matter least, in order."""
        return self.group.channels_of(np.argsort(self.importance, kind="stable")[:count].tolist())


@dataclass(frozen=True)
class Rules:
    """How units compete, and how many must stay.

    With the ranking "local" they compete within each group, with "global" all with all, with "isomorphic" within groups
    of one shape, and with "lamp" all with all, by their LAMP scores.

    What is left of a group is rounded to a multiple of `round_to` channels, is at least a share of `least` of the
    group, and at least as many channels as `floors` has for the group's name.
    """

    ranking: Ranking
    round_to: int
    least: float
    floors: Mapping[str, int] = field(default_factory=dict)


def removal_of(share: float, ranked: Sequence[Ranked], rules: Rules) -> Removal:
    """The removal of a share of all units, 0 to 1, before rounding."""
    scopes: dict[str, list[Ranked]] = {}
    for each in ranked:
        scope = {"local": each.group.name, "isomorphic": each.group.shape}.get(rules.ranking, "")
        scopes.setdefault(scope, []).append(each)
    removal: dict[str, tuple[int, ...]] = {}
    for members in scopes.values():
        owner = np.repeat(np.arange(len(members)), [each.group.units for each in members])
        scores = [lamp_scores(each.importance) if rules.ranking == "lamp" else each.importance for each in members]
        order = np.argsort(np.concatenate(scores), kind="stable")
        going = np.bincount(owner[order[: math.floor(share * len(order))]], minlength=len(members))
        for each, count in zip(members, going.tolist(), strict=True):
            kept = rounded(each.group, each.group.units - count, rules)
            if kept < each.group.units:
                removal[each.group.name] = each.least_important(each.group.units - kept)
    return removal


def smallest_removal(
    ranked: Sequence[Ranked], rules: Rules, cost: Callable[[Removal], float], most: float, evaluations: int
) -> tuple[Removal, float]:
    """The removal of the smallest share of units that brings the cost to `most`, and what it costs.

    `cost` is asked `evaluations` times, halving the range of shares each time. Where even the largest removal costs
    more than `most`, that one is returned with its cost.
    """
    low, high = 0.0, 1.0
    best = removal_of(high, ranked, rules)
    best_cost = cost(best)
    if best_cost > most:
        return best, best_cost
    for _ in range(evaluations - 1):
        middle = (low + high) / 2
        candidate = removal_of(middle, ranked, rules)
        candidate_cost = cost(candidate)
        if candidate_cost <= most:
            high, best, best_cost = middle, candidate, candidate_cost
        else:
            low = middle
    return best, best_cost


def rounded(group: ChannelGroup, kept: int, rules: Rules) -> int:
    """How many units of `group` stay when about `kept` do: the nearest number that the rules allow."""
    step = rules.round_to // math.gcd(rules.round_to, group.parts)
    floor = math.ceil(rules.floors.get(group.name, 0) / group.parts)
    least = min(max(1, math.ceil(rules.least * group.units), floor), group.units)
    allowed = [*range(step, group.units, step), group.units]
    chosen: int = min((count for count in allowed if count >= least), key=lambda count: (abs(count - kept), count))
    return chosen
