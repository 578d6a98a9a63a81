"""An optimized file beside the float file of the same export, and the same runtime."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from edgeopt.measure.latency import Latency
from edgeopt.report import figures
from edgeopt.report.schema import Row
from edgeopt.tasks.statistics import Paired
from edgeopt.types import Role

_NOISY_SHARE = 0.25  # of p50: a wider spread among the figures of one file means that the machine was busy
# Turns cannot show this: where a process's memory lies stays the same for all of its turns. On the two cores of a
# virtual machine that the benchmarks were written on, two processes with the same file came within 2 % of each other,
# and twice that counts as noise. A noisier machine shows itself in turns that contradict each other.
_SAME_LATENCY = 0.05
_ENOUGH_TURNS = 3  # two turns agree by chance half the time


def noise(latency: Latency) -> tuple[str, ...]:
    """Which figures of a latency are so far apart that the machine was busy: p90 and p50, or its turns; or none."""
    found = []
    if latency.p90 > (1 + _NOISY_SHARE) * latency.p50:
        found.append(f"p50 {figures.milliseconds(latency.p50)}, p90 {figures.milliseconds(latency.p90)}")
    if latency.turns and max(latency.turns) > (1 + _NOISY_SHARE) * min(latency.turns):
        found.append(
            f"turns from {figures.milliseconds(min(latency.turns))} to {figures.milliseconds(max(latency.turns))}"
        )
    return tuple(found)


@dataclass(frozen=True)
class Comparison:
    """Two files of one runtime; a figure is None where one of the files does not have it."""

    optimized: Row
    baseline: Row

    @property
    def size_factor(self) -> float | None:
        """How many times smaller the optimized file is."""
        return _ratio(self.baseline.size_bytes, self.optimized.size_bytes)

    @property
    def latencies(self) -> tuple[Latency, Latency] | None:
        """Latency of the float and of the optimized file, when both were measured alike."""
        before, after = self.baseline.latency_ms, self.optimized.latency_ms
        if before is None or after is None:
            return None
        alike = (before.threads, before.batch_size) == (after.threads, after.batch_size)
        return (before, after) if alike else None

    @property
    def latency_factor(self) -> float | None:
        """How many times faster the optimized file is, in the median of its turns; below 1 it is slower.

        A turn is compared with the other file's turn beside it, so that a machine that changes its speed in between
        changes both.
        """
        if self.latencies is None:
            return None
        before, after = self.latencies
        factors = _turn_factors(before, after)
        return statistics.median(factors) if factors else _ratio(before.p50, after.p50)

    @property
    def latency_within_noise(self) -> bool:
        """Whether the files are as good as equal, or one turn contradicts the others.

        Of too few turns, whether the faster file's p90 reaches the slower file's p50.
        """
        if self.latencies is None or self.latency_factor is None:
            return False
        if 1 / (1 + _SAME_LATENCY) < self.latency_factor < 1 + _SAME_LATENCY:
            return True
        factors = _turn_factors(*self.latencies)
        if len(factors) >= _ENOUGH_TURNS:
            return min(factors) <= 1 <= max(factors)
        faster, slower = sorted(self.latencies, key=lambda latency: latency.p50)
        return faster.p90 >= slower.p50

    @property
    def accuracy_change(self) -> float | None:
        """Test accuracy of the optimized file less that of the float file."""
        before, after = self.baseline.test_accuracy, self.optimized.test_accuracy
        return None if before is None or after is None else after - before

    @property
    def paired(self) -> Paired | None:
        """How many of the same test images the optimized file loses and gains against the float file."""
        return self.optimized.against_float_file

    @property
    def same_bytes(self) -> bool:
        """Whether both files are the same to the byte."""
        return self.optimized.sha256 is not None and self.optimized.sha256 == self.baseline.sha256


def baseline_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """The float file of the same export, or None."""
    return next((other for other in rows if other.role is Role.BASELINE and other.export == row.export), None)


def compare(row: Row, rows: Sequence[Row]) -> Comparison | None:
    """An optimized file that was made beside its float file that was made, or None."""
    baseline = baseline_of(row, rows)
    if row.role is not Role.OPTIMIZED or row.error or baseline is None or baseline.error:
        return None
    return Comparison(row, baseline)


def comparisons(rows: Sequence[Row]) -> tuple[Comparison, ...]:
    """All pairs of files that can be compared, in the order of the rows."""
    return tuple(pair for row in rows if (pair := compare(row, rows)))


def title(row: Row) -> str:
    """A short name of a file, as in "executorch int8"."""
    return f"{row.export} {row.precision}"


def _turn_factors(before: Latency, after: Latency) -> tuple[float, ...]:
    if len(before.turns) != len(after.turns):
        return ()
    return tuple(turn_before / turn_after for turn_before, turn_after in zip(before.turns, after.turns, strict=True))


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return numerator / denominator if numerator and denominator else None
