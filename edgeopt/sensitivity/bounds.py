"""Bounds on a population from a random sample of it."""

from __future__ import annotations

import math
from collections.abc import Iterable

_NEGLIGIBLE = 1e-12


def most_hits(population: int, seen: int, hits: int, error: float) -> int:
    """An upper bound on the hits in a population of which `seen` were drawn at random without replacement and `hits`
    counted.

    It is too low with a probability of at most `error`; with an error of 0 it is the number that would be reached if
    all that was not seen were a hit. This is the exact test of the hypergeometric distribution turned around (H. Chung
    and D. DeLury, "Confidence limits for the hypergeometric distribution", 1950).
    """
    low, high = hits, hits + population - seen  # `low` cannot be excluded, and all above `high` are impossible
    if error <= 0.0:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if _at_most(hits, population, middle, seen) > error:
            low = middle
        else:
            high = middle - 1
    return low


def fewest_hits(population: int, seen: int, hits: int, error: float) -> int:
    """A lower bound, as `most_hits` is an upper one."""
    return population - most_hits(population, seen, seen - hits, error)


def _at_most(hits: int, population: int, successes: int, drawn: int) -> float:
    """P(X <= hits) where `drawn` of a population with `successes` are drawn."""
    failures = population - successes
    least, most = max(0, drawn - failures), min(successes, drawn)
    if hits < least or hits >= most:
        return 0.0 if hits < least else 1.0
    mode = (drawn + 1) * (successes + 1) // (population + 2)
    if hits < mode:  # the smaller tail is summed, from its largest term on
        falling = (
            count * (failures - drawn + count) / ((successes - count + 1) * (drawn - count + 1))
            for count in range(hits, least, -1)
        )
        return _sum_of_terms(_probability(hits, population, successes, drawn), falling)
    rising = (
        (successes - count) * (drawn - count) / ((count + 1) * (failures - drawn + count + 1))
        for count in range(hits + 1, most)
    )
    return 1.0 - _sum_of_terms(_probability(hits + 1, population, successes, drawn), rising)


def _sum_of_terms(term: float, ratios: Iterable[float]) -> float:
    """The sum of a term and those that follow, each a ratio times the one before; ratios fall, so
    small terms end it.
    """
    total = term
    for ratio in ratios:
        term *= ratio
        total += term
        if term < _NEGLIGIBLE * total:
            break
    return total


def _probability(hits: int, population: int, successes: int, drawn: int) -> float:
    """P(X = hits)."""
    chosen = _log_choose(successes, hits) + _log_choose(population - successes, drawn - hits)
    return math.exp(chosen - _log_choose(population, drawn))


def _log_choose(whole: int, part: int) -> float:
    return math.lgamma(whole + 1) - math.lgamma(part + 1) - math.lgamma(whole - part + 1)
