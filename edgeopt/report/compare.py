"""An optimized file beside the float file of the same export, and the same runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeopt.measure import Latency
from edgeopt.report import figures
from edgeopt.report.schema import Row
from edgeopt.types import Role

_NOISY_SHARE = 0.25  # of p50: that far apart, figures of one file tell of other work on the machine


def noise(latency: Latency) -> tuple[str, ...]:
    """What of a latency is further apart than a quiet machine lets it be: p90 and p50, or its turns; empty when nothing is."""
    found = []
    if latency.p90 > (1 + _NOISY_SHARE) * latency.p50:
        found.append(f"p50 {figures.milliseconds(latency.p50)}, p90 {figures.milliseconds(latency.p90)}")
    fastest, slowest = latency.fastest_turn, latency.slowest_turn
    if fastest is not None and slowest is not None and slowest > (1 + _NOISY_SHARE) * fastest:
        found.append(f"turns from {figures.milliseconds(fastest)} to {figures.milliseconds(slowest)}")
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
        """How many times faster the optimized file is, by p50; below 1 it is slower."""
        return _ratio(self.latencies[0].p50, self.latencies[1].p50) if self.latencies else None

    @property
    def latency_within_noise(self) -> bool:
        """Whether the faster file's p90 reaches the slower file's p50, or the slower file's fastest turn the faster file's p50."""
        if self.latencies is None:
            return False
        faster, slower = sorted(self.latencies, key=lambda latency: latency.p50)
        return faster.p90 >= slower.p50 or (slower.fastest_turn is not None and slower.fastest_turn <= faster.p50)

    @property
    def accuracy_change(self) -> float | None:
        """Test accuracy of the optimized file less that of the float file."""
        before, after = self.baseline.test_accuracy, self.optimized.test_accuracy
        return None if before is None or after is None else after - before

    @property
    def intervals_overlap(self) -> bool:
        """Whether the intervals of both accuracies share a value, so that their difference may be chance."""
        before, after = self.baseline.accuracy_interval, self.optimized.accuracy_interval
        return before is not None and after is not None and before[0] <= after[1] and after[0] <= before[1]

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


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return numerator / denominator if numerator and denominator else None
