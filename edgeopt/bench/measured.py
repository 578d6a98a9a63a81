"""What came of measuring files, on this machine or on devices."""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.bench.table import BenchDevice, BenchRow, OperatorsRow, SustainedRow, WholeRow
from edgeopt.errors import EdgeoptError


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Parts of a `Bench`. `untold` says why some figures are not known, a sentence each, and `failures` what is wrong
    with devices that were not measured, and with the files where not one was.
    """

    image: str
    rows: tuple[BenchRow, ...]
    whole: tuple[WholeRow, ...]
    sustained: tuple[SustainedRow, ...]
    operators: tuple[OperatorsRow, ...]
    devices: tuple[BenchDevice, ...] = ()
    verdicts: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()
    failures: tuple[EdgeoptError, ...] = ()
