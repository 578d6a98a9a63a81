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
    """Prints a line for each file; whether each answers on the board as here, but for what rounding decides."""
    passed = True
    for row in bench.rows:
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
