"""The whole of `edgeopt bench --device` on an emulated board: its answers count, its times do not."""

from __future__ import annotations

import shlex
from pathlib import Path

from prepare import CPU, QEMU, EmulatedPython, PreparationError, with_progress

import edgeopt
from edgeopt.bench.request import BenchRequest
from edgeopt.bench.run import run_bench
from edgeopt.bench.table import Bench
from edgeopt.errors import UserError
from edgeopt.options import MeasureSettings

PLUGIN = Path(__file__).with_name("board_plugin.py")
IMAGES = 20
RECIPE = """\
schema = 1
name = "board"

[dataset]
use = "digits"
image_size = 32
limit = 200

[model]
use = "torchvision"
arch = "mobilenet_v3_small"
weights = "none"

[[passes]]
use = "ptq"

[[exports]]
use = "onnx"

[[exports]]
use = "tflite"

[measure]
runs = 5
rounds = 1
"""


def bench_on_board(emulated: EmulatedPython, cache: Path) -> Bench:
    """A run's files on the board, and on this machine beside it.

    Raises `PreparationError` where the board cannot be used at all.
    """
    with_progress("a run, and its files on an emulated board")
    (cache / "board.toml").write_text(RECIPE)
    python = cache / "python3-arm64"
    python.write_text(
        f"#!/bin/sh\nPYTHONPATH={shlex.quote(str(emulated.packages))} exec {QEMU} -cpu {CPU} "
        f'-L {shlex.quote(str(emulated.root))} {shlex.quote(str(emulated.python))} "$@"\n'
    )
    python.chmod(0o755)
    (cache / "devices.toml").write_text(f'[[devices]]\nuse = "emulated"\nname = "board"\npython = "{python}"\n')
    try:
        run = edgeopt.run(cache / "board.toml", out=cache / "runs").folder
        result = run_bench(
            BenchRequest(
                (run,),
                devices=("local", "board"),
                recipe=cache / "devices.toml",
                images=IMAGES,
                threads=(1, 2),
                sustained_s=1.0,
                settings=MeasureSettings(runs=5, rounds=1, warmup=1),
                plugin_files=(PLUGIN,),
            )
        )
    except UserError as error:
        raise PreparationError(str(error)) from error
    if result.failures:
        raise PreparationError("\n".join(map(str, result.failures)))
    return result.bench


def report(bench: Bench) -> bool:
    """Prints a line for each file and each part of the benchmark; whether each answers on the board as here, but for
    what rounding decides, and was timed there in every way.
    """
    passed = _measured(bench)
    for row in bench.rows:
        if row.latency_ms is None:
            passed = False
        if row.threads != 1:
            continue  # answers were taken with the first number of threads
        told = row.answers
        fine = row.error is None and told is not None and told.differing == told.near_ties
        passed = passed and fine
        said = row.error or (
            f"{told.differing} of {told.images} images other than here, {told.near_ties} within rounding; logits differ "
            f"by {told.max_logit_difference:.2g}"
            if told
            else "no answers"
        )
        print(f"{'ok  ' if fine else 'FAIL'} {row.device:5}  {row.file}: {said}")
    return passed


def _measured(bench: Bench) -> bool:
    """Whether calls without a pause and the whole way of an image are known of every file on every device."""
    ways = {
        f"{row.device}, {row.file}, {row.threads} threads: {row.error}" for row in bench.whole if not row.pipeline_ms
    }
    minutes = {
        f"{row.device}, {row.file}, {row.threads} threads: {row.error}" for row in bench.sustained if not row.minutes
    }
    for what, known, missing in (("whole way", bench.whole, ways), ("without a pause", bench.sustained, minutes)):
        print(f"{'FAIL' if missing else 'ok  '} {what}: {len(known) - len(missing)} of {len(bench.rows)} are timed")
        for each in sorted(missing):
            print(f"     {each}")
    return not ways and not minutes and len(bench.whole) == len(bench.sustained) == len(bench.rows)
