"""Benchmarks finished files: makes those that a sweep needs, times all, and writes tables and a page."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt._version import __version__
from edgeopt.bench.converted import Labelled, named_dataset
from edgeopt.bench.device_tests import DeviceTests
from edgeopt.bench.image import make_image
from edgeopt.bench.on_devices import DeviceWork, named_devices
from edgeopt.bench.on_this_machine import WHOLE, LocalWork
from edgeopt.bench.request import BenchRequest
from edgeopt.bench.rows import fed
from edgeopt.bench.sweep.make import SweptFile, make_files
from edgeopt.bench.sweep.wanted import all_wanted
from edgeopt.bench.table import Bench
from edgeopt.errors import EdgeoptError, Problem, UserError
from edgeopt.files import storage_errors, write_aside
from edgeopt.fingerprint import file_digest, versions_of
from edgeopt.measure.energy import Meter, MeterError, find_meter
from edgeopt.plugins.device import WholeWay
from edgeopt.plugins.handed import hand_over
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.devices import chosen
from edgeopt.report.finished_files import FinishedFile, find_files
from edgeopt.report.machine import this_machine
from edgeopt.workers.pool import Workers

if TYPE_CHECKING:  # rich is loaded when something is shown
    from rich.console import Console

FOLDER = "bench"
"""Where below a run its benchmark lies."""
JSON, CSV, PAGE = "bench.json", "bench.csv", "bench.html"


@dataclass(frozen=True)
class BenchResult:
    """What was measured, the folder in which it lies, and what was wrong with devices that were not measured, and with
    the files where not one was.
    """

    bench: Bench
    folder: Path
    failures: tuple[EdgeoptError, ...] = ()


def run_bench(request: BenchRequest, console: Console | None = None) -> BenchResult:
    """Times files as the request says, and writes `bench.json`, `bench.csv` and `bench.html`.

    A file that fails, or takes fewer images in a call, has a row that says so. Nothing is shown without a `console`.
    Raises `UserError` where there is nothing that can be timed.
    """
    registry = load_registry(request.plugin_files)
    catalogue = find_files(request.given, registry)
    if request.image and not request.image.is_file():
        raise UserError(Problem(f"--image {request.image}: there is no such file", "name an image, or leave it out"))
    alone = [file for file in catalogue.files if file.is_converted]
    dataset = named_dataset(request, alone, registry)
    if request.devices and alone:
        names = ", ".join(file.name for file in alone)
        hint = "name files of runs, or leave --device out"
        raise UserError(Problem(f"{names} has no run, whose test images a device would be given", hint))
    wanted = chosen(named_devices(request, catalogue.files, registry), request.devices) if request.devices else {}
    out = request.out or catalogue.files[0].folder / FOLDER
    from rich.console import Console  # shown things are loaded only when there is something to show

    from edgeopt.workers.display import Display

    with storage_errors(out), tempfile.TemporaryDirectory(prefix="edgeopt-bench-") as aside:
        out.mkdir(parents=True, exist_ok=True)
        image = request.image or Path(aside) / "image.jpg"
        if request.image is None:
            make_image(image)
        with (
            Display(console or Console(quiet=True)) as display,
            Workers(Path(aside) / "jobs", out / "log.txt", display) as workers,
        ):
            needed, below = all_wanted(request, catalogue.files), Path(aside) / "sweep"
            below.mkdir()
            devices_take = request.images if wanted else 0
            swept = make_files(needed, registry, workers, request.settings, out.resolve(), below, devices_take)
            made = [each.file for each in swept.values() if isinstance(each, SweptFile)]
            handed = {}
            for number, each in enumerate((*catalogue.files, *made)):
                handed[each.path] = workers.folder / f"file-{number}.pickle"
                hand_over(fed(each, registry, image.resolve()), handed[each.path], registry)
            files, labelled = catalogue.files, ""
            if dataset is not None:
                files, labelled = Labelled(request, dataset, registry, workers).judged(files)
            if wanted:
                tests = DeviceTests(request, files, swept, registry, Path(aside))
                whole = WholeWay(image, file_digest(image), WHOLE.warmup, WHOLE.runs)
                measured = DeviceWork(request, wanted, files, tests, handed, registry, display, whole).run()
            else:
                meter, untold = _meter(request)
                measured = LocalWork(request, files, swept, handed, workers, display, meter, untold).run()
        bench = Bench(
            edgeopt=__version__,
            runs=tuple(dict.fromkeys(each.run for each in catalogue.files)),
            environment=this_machine(_versions(catalogue.files)),
            protocol=request.settings.protocol,
            image=measured.image,
            rows=measured.rows,
            whole=measured.whole,
            sustained=measured.sustained,
            operators=measured.operators,
            devices=measured.devices,
            verdicts=measured.verdicts,
            left_out=(*catalogue.left_out, *measured.untold),
            key=request.key(each.identity for each in catalogue.files),
            labelled=labelled,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        _write(bench, out)
    return BenchResult(bench, out, measured.failures)


def is_measured(request: BenchRequest) -> bool:
    """Whether the folder of a benchmark holds what it asks for, measured on this machine of the very same files, one of
    which has figures.
    """
    files = find_files(request.given, load_registry(request.plugin_files)).files
    folder = request.out or files[0].folder / FOLDER
    try:
        kept = json.loads((folder / JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(kept, dict) or kept.get("key") != request.key(each.identity for each in files):
        return False
    return not all(row["error"] for row in kept["rows"])


def _meter(request: BenchRequest) -> tuple[Meter | None, list[str]]:
    """This machine's meter where energy is asked of it, or why there is none."""
    if not request.energy:
        return None, []
    try:
        return find_meter(), []
    except MeterError as error:
        return None, [f"energy is not known: {error}"]


def _versions(files: Sequence[FinishedFile]) -> dict[str, str]:
    return versions_of({"numpy", "pillow", *(name for each in files for name in each.exporter.requires)})


def _write(bench: Bench, out: Path) -> None:
    from edgeopt.bench.page import render_page  # matplotlib and jinja2

    write_aside(out / JSON, bench.to_json())
    write_aside(out / CSV, bench.to_csv())
    write_aside(out / PAGE, render_page(bench))
