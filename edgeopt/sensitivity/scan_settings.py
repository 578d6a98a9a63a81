"""How a scan is done. Light: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.sensitivity.table import Measure


@dataclass(frozen=True)
class ScanSettings:
    """How a scan measures and when it stops.

    `threshold` is the largest score that passes; None measures without a verdict. `error` bounds the probability that
    any verdict of the scan is not the one on all images; 0 stops only where no image that is left could change it.
    Without `stop_early` every layer and level sees all images. `images` takes so many at random instead of the
    whole split. `workers` are the threads that work side by side; with 0, the caller has not said.
    """

    measure: Measure = Measure.ACCURACY
    threshold: float | None = 0.01
    error: float = 0.01
    stop_early: bool = True
    images: int | None = None
    batch_size: int = 32
    workers: int = 0
    seed: int = 17
