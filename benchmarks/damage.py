"""Reads damaged files for some minutes: recipes, cards, what runs left, images, what names images, checkpoints.

Each file is whole at first and is damaged at random, by bytes or by values, as `tests/damaged_files.py` has it; the test
of it, `tests/test_damaged_files.py`, tries some dozens of each. A reader may read what it is given or refuse it, by an
error of edgeopt's own. Any other error counts as a failure, and the smallest file that brings it is shown.

Models that native code reads (`models`: ONNX, `.pt2`, `.keras`, `.h5`, `.tflite`) are read in a process of their own with
6 GB of memory, as a run's workers read them: crashes of that process are counted, for a run tells of them, and a file that
takes longer than two minutes is a failure.

    python benchmarks/damage.py --minutes 10 [--only models]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bars import Bar, finish
from hypothesis import settings
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import edgeopt
from edgeopt.plugins.registry import load_registry

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from conftest import TINY_PLUGIN, TINY_RECIPE  # noqa: E402  # tests are no package
from damaged_apart import Apart  # noqa: E402
from damaged_files import (  # noqa: E402
    Target,
    targets_of_data,
    targets_of_models,
    targets_of_records,
    targets_of_runs,
    targets_of_tfds,
    targets_of_weights,
)
from tfds_files import pets  # noqa: E402

AT_ONCE, OF_MODELS = 500, 25  # files of a turn
LEAST = 100  # files of each reader that ten minutes are to give


@dataclass
class Tried:
    """How many files a reader was given, for how long, and the error that was no refusal."""

    target: Target
    files: int = 0
    seconds: float = 0.0
    failure: str = ""

    @property
    def crashes(self) -> str:
        """By what its process ended, where it has one of its own."""
        counts = Counter(self.target.read.crashes if isinstance(self.target.read, Apart) else ())
        return ", ".join(f"{count} {name}" for name, count in counts.items())

    def go_on(self) -> None:
        """Gives it some files more; a reader that failed once is done."""
        count = OF_MODELS if isinstance(self.target.read, Apart) else AT_ONCE
        start = time.perf_counter()
        try:
            self.target.exercise(settings(max_examples=count, database=None, deadline=None))
        except Exception as error:  # whatever a reader raises is what is looked for
            self.failure = f"{type(error).__name__}: {error}".partition("\n")[0]
            traceback.print_exception(error)
        self.files += count
        self.seconds += time.perf_counter() - start


def targets(folder: Path, of: Collection[str]) -> Iterator[Target]:
    """The readers that are asked for, each with a folder to write to."""
    if "models" in of:
        yield from targets_of_models(folder / "of_models")
    if "others" not in of:
        return
    registry = load_registry()
    (folder / "recipe.toml").write_text(TINY_RECIPE)
    run = edgeopt.run(folder / "recipe.toml", out=folder / "runs", plugin_files=[TINY_PLUGIN]).folder
    yield from targets_of_runs(run, TINY_RECIPE.encode(), folder / "of_runs")
    yield from targets_of_data(registry, folder / "of_data")
    yield from targets_of_tfds(registry, pets(folder / "pets/1.0.0", train=8, test=4))
    yield from targets_of_records(registry, pets(folder / "records/1.0.0", train=4, test=4))
    yield from targets_of_weights(folder / "of_weights")


def main(argv: Sequence[str] | None = None) -> None:
    """Goes round all readers until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="for how long, in all")
    parser.add_argument("--only", nargs="+", choices=["models", "others"], default=["models", "others"])
    given = parser.parse_args(argv)
    end = time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as name, Progress(console=Console(stderr=True)) as progress:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        tried = [Tried(target) for target in targets(Path(name), given.only)]
        bar = progress.add_task("damaged files", total=60 * given.minutes)
        while time.monotonic() < end and any(not each.failure for each in tried):
            # the one that had the least time is next: a slow reader gets fewer files, and none is forgotten
            min((each for each in tried if not each.failure), key=lambda each: each.seconds).go_on()
            progress.update(bar, completed=60 * given.minutes - (end - time.monotonic()))
        for each in tried:
            if isinstance(each.target.read, Apart):
                each.target.read.end()
    table = Table("reader", "files", "seconds", "raised", "its process ended by")
    for each in tried:
        said = each.failure or "refusals alone"
        table.add_row(each.target.name, f"{each.files:,}", f"{each.seconds:.1f}", said, each.crashes)
    Console(width=140).print(table)
    finish(
        Bar("readers that raised something else than a refusal", sum(bool(each.failure) for each in tried), 0),
        Bar("damaged files read, of each reader at least", min(each.files for each in tried), LEAST, at_least=True),
    )


if __name__ == "__main__":
    main()
