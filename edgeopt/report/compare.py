"""An optimized file beside the float file of the same export, and the same runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeopt.report.figures import MISSING
from edgeopt.report.latencies import LatencyPair, measured_alike, ratio
from edgeopt.report.schema import Row
from edgeopt.tasks.statistics import Paired
from edgeopt.types import Role


@dataclass(frozen=True)
class Comparison:
    """Two files of one runtime; a figure is None where one of the files does not have it."""

    optimized: Row
    baseline: Row

    @property
    def size_factor(self) -> float | None:
        """How many times smaller the optimized file is."""
        return ratio(self.baseline.size_bytes, self.optimized.size_bytes)

    @property
    def latencies(self) -> LatencyPair | None:
        """Latency of the float and of the optimized file, when both were measured alike."""
        before, after = self.baseline.latency_ms, self.optimized.latency_ms
        return LatencyPair(before, after) if before and after and measured_alike(before, after) else None

    @property
    def latency_factor(self) -> float | None:
        """How many times faster the optimized file is; below 1 it is slower. See `LatencyPair.factor`."""
        return self.latencies.factor if self.latencies else None

    @property
    def latency_within_noise(self) -> bool:
        """Whether the difference in latency may be noise. See `LatencyPair.within_noise`."""
        return self.latencies.within_noise if self.latencies else False

    @property
    def score_change(self) -> float | None:
        """The primary score of the optimized file less that of the float file."""
        before, after = self.baseline.score, self.optimized.score
        return None if before is None or after is None else after.value - before.value

    @property
    def score_change_text(self) -> str:
        """That change as people read it."""
        change, score = self.score_change, self.optimized.score
        return MISSING if change is None or score is None else score.kind.change_text(change)

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
