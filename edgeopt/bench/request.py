"""What a benchmark is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgeopt.options import MeasureSettings


@dataclass(frozen=True)
class BenchRequest:
    """Finished runs, or files in them, and what is to be known of them.

    Each file is timed with every number of `batches` and every number of `threads`, as `settings` say otherwise; for
    `sustained_s` without a pause after that, 0 for not at all. With `operators`, what each operator of it takes is
    asked of its runtime. `image` is the file that all are given, None for one that is made. `out` takes the results,
    None for the folder `bench` of the first run.

    With `devices`, each file answers for `images` test images on each of them and is timed there with these, by their
    names in `recipe`, or in the recipe of its run where that is None.
    """

    given: tuple[Path, ...]
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (1,)
    sustained_s: float = 0.0
    operators: bool = False
    settings: MeasureSettings = field(default_factory=MeasureSettings)
    image: Path | None = None
    out: Path | None = None
    devices: tuple[str, ...] = ()
    recipe: Path | None = None
    images: int = 500
    plugin_files: tuple[Path, ...] = ()
