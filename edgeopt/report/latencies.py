"""Two latencies beside each other, and whether one of them can be trusted at all. Pure functions."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from edgeopt.measure.latency import Latency
from edgeopt.report import figures

_NOISY_SHARE = 0.25  # of p50: a wider spread among the figures of one file means that the machine was busy
# Turns cannot show this: where a process's memory lies stays the same for all of its turns. On the two cores of a
# virtual machine that the benchmarks were written on, two processes with the same file came within 2 % of each other,
# and twice that counts as noise. A noisier machine shows itself in turns that contradict each other.
_SAME_LATENCY = 0.05
_ENOUGH_TURNS = 3  # two turns agree by chance half the time


def noise(latency: Latency) -> tuple[str, ...]:
    """Which figures of a latency are so far apart that the machine was busy: p90 and p50, or its turns; or none."""
    found = []
    if latency.p90 is not None and latency.p90 > (1 + _NOISY_SHARE) * latency.p50:
        found.append(f"p50 {figures.milliseconds(latency.p50)}, p90 {figures.milliseconds(latency.p90)}")
    if latency.turns and max(latency.turns) > (1 + _NOISY_SHARE) * min(latency.turns):
        found.append(
            f"turns from {figures.milliseconds(min(latency.turns))} to {figures.milliseconds(max(latency.turns))}"
        )
    return tuple(found)


@dataclass(frozen=True)
class LatencyPair:
    """Two files that took turns on one machine, measured alike."""

    before: Latency
    after: Latency

    @property
    def factor(self) -> float | None:
        """How many times faster the second file is, in the median of its turns; below 1 it is slower.

        A turn is compared with the other file's turn beside it, so that a machine that changes its speed in between
        changes both.
        """
        factors = self._turn_factors
        return statistics.median(factors) if factors else ratio(self.before.p50, self.after.p50)

    @property
    def within_noise(self) -> bool:
        """Whether the files are as good as equal, or one turn contradicts the others.

        Of too few turns, whether the faster file's p90 reaches the slower file's p50.
        """
        if self.factor is None:
            return False
        if is_same(self.factor):
            return True
        factors = self._turn_factors
        if len(factors) >= _ENOUGH_TURNS:
            return min(factors) <= 1 <= max(factors)
        faster, slower = sorted((self.before, self.after), key=lambda latency: latency.p50)
        return faster.p90 is None or faster.p90 >= slower.p50

    @property
    def _turn_factors(self) -> tuple[float, ...]:
        before, after = self.before.turns, self.after.turns
        if len(before) != len(after):
            return ()
        return tuple(turn_before / turn_after for turn_before, turn_after in zip(before, after, strict=True))


def measured_alike(before: Latency, after: Latency) -> bool:
    """Whether both are of as many threads and images in a call."""
    return (before.threads, before.batch_size) == (after.threads, after.batch_size)


def is_same(factor: float) -> bool:
    """Whether a factor between two latencies is too close to 1 to be told from it."""
    return 1 / (1 + _SAME_LATENCY) < factor < 1 + _SAME_LATENCY


def certainly_apart(before: Latency, after: Latency) -> bool:
    """Whether two latencies that were measured at different times are apart: by more than noise, and each turn of one
    above each turn of the other. Of too few turns nothing is certain.
    """
    factor = ratio(before.p50, after.p50)
    if factor is None or is_same(factor) or min(len(before.turns), len(after.turns)) < _ENOUGH_TURNS:
        return False
    return max(before.turns) < min(after.turns) or max(after.turns) < min(before.turns)


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """One figure by another; None where one is missing or 0."""
    return numerator / denominator if numerator and denominator else None
