"""What a benchmark is asked for."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from edgeopt._version import __version__
from edgeopt.arrays import ImageSize
from edgeopt.fingerprint import digest
from edgeopt.option_values import seconds_of
from edgeopt.options import MeasureSettings, SweepSettings, to_json


@dataclass(frozen=True)
class BenchRequest:
    """Finished runs, or files in them, and what is to be known of them.

    Each file is timed with every number of `batches` and every number of `threads`, as `settings` say otherwise; files
    for images of other `sizes`, px, are made and timed with the first of `batches`. Each is called for `sustained_s`
    without a pause after that, 0 for not at all. With `operators`, what each operator of it takes is asked of its
    runtime, and with `energy` what an image takes of the machine's meter. `image` is the file that all are given, None
    for one that is made. `out` takes the results, None for the folder `bench` of the first run.

    With `devices`, each file answers for `images` test images on each of them and is timed there with these, by their
    names in `recipe`, or in the recipe of its run where that is None.

    `dataset` names a data set, with options as `--set dataset.OPTION=VALUE` has them in `overrides`, for whose first
    `images` test images files of no run answer, so that their accuracy is known.
    """

    given: tuple[Path, ...]
    batches: tuple[int, ...] = (1,)
    sizes: tuple[ImageSize, ...] = ()
    threads: tuple[int, ...] = (1,)
    sustained_s: float = 0.0
    operators: bool = False
    energy: bool = False
    settings: MeasureSettings = field(default_factory=MeasureSettings)
    image: Path | None = None
    out: Path | None = None
    devices: tuple[str, ...] = ()
    recipe: Path | None = None
    images: int = 500
    dataset: str | None = None
    overrides: tuple[str, ...] = ()
    plugin_files: tuple[Path, ...] = ()

    def key(self, files: Iterable[str]) -> str:
        """By what one benchmark is told from another: what is asked for, the bytes of `files`, and the machine."""
        asked = [self.batches, self.sizes, self.threads, self.sustained_s, self.operators, self.energy]
        return digest([__version__, platform.node(), to_json(self.settings), *asked, str(self.image), sorted(files)])


def swept(run: Path, measure: MeasureSettings, plugin_files: Iterable[Path] = ()) -> BenchRequest:
    """What `[measure]` of a recipe asks for, of a finished run of it; without a sweep, what a run measures itself."""
    sweep = measure.sweep or SweepSettings()
    return BenchRequest(
        (run,),
        batches=sweep.batches or (measure.batch_size,),
        sizes=sweep.sizes,
        threads=sweep.threads or (measure.threads,),
        sustained_s=seconds_of(sweep.sustained) if sweep.sustained else 0.0,
        operators=sweep.operators,
        energy=sweep.energy or measure.energy_here,
        settings=measure.model_copy(update={"sweep": None}),
        plugin_files=tuple(plugin_files),
    )
