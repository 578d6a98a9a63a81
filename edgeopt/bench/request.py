"""What a benchmark is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgeopt.options import MeasureSettings


@dataclass(frozen=True)
class BenchRequest:
    """Finished runs, or files in them, and what is to be known of them.

    Each file is timed with every number of `batches` and every number of `threads`, as `settings` say otherwise; for
    `sustained_s` without a pause after that, 0 for not at all. `image` is the file that all are given, None for one
    that is made. `out` takes the results, None for the folder `bench` of the first run.
    """

    given: tuple[Path, ...]
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (1,)
    sustained_s: float = 0.0
    settings: MeasureSettings = field(default_factory=MeasureSettings)
    image: Path | None = None
    out: Path | None = None
    plugin_files: tuple[Path, ...] = ()
