"""What files cost: all formats of a recipe against the slowest one alone, and a `.pte` against ExecuTorch's own calls.

MobileNetV3-small at 64 px, quantized after training. In the first part, seconds from a cached program to the report, in
one run. Files are made side by side, one a core. The bar stands for the files that the recipe asks for; the last rows
have the float files as well that are made beside them by default.

In the second part, CPU seconds of the int8 `.pte` alone, from the quantized program to the file, against a script with
ExecuTorch's own calls (`pte_turn.py`), in turns of fresh processes with one thread. Both files must give the same
logits. The bar is the median of the ratios of neighbouring turns.

    python benchmarks/exports.py [--only formats|pte] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bars import Bar, finish
from rich.console import Console
from rich.table import Table

import edgeopt
from edgeopt.recipe.read import parse_recipe

FORMATS = ("executorch", "tflite", "onnx")
LIMIT = 1.25
PTE_LIMIT = 0.7


def recipe(formats: Sequence[str], *, baseline: bool) -> edgeopt.Recipe:
    """The same program for any choice of formats."""
    return parse_recipe(
        {
            "schema": 1,
            "name": "exports",
            "baseline": baseline,
            "dataset": {"use": "digits", "image_size": 64},
            "model": {"use": "torchvision", "arch": "mobilenet_v3_small"},
            "passes": [{"use": "train", "epochs": 1}, {"use": "ptq", "quantizer": "xnnpack"}],
            "exports": [{"use": each} for each in formats],
            "measure": {"runs": 5, "rounds": 1, "warmup": 1},
        }
    )


def seconds(formats: Sequence[str], trunk: Path, *, baseline: bool) -> float:
    """How long a run takes that has the program already."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(trunk, out := Path(folder) / "runs")
        start = time.perf_counter()
        result = edgeopt.run(recipe(formats, baseline=baseline), out=out, console=Console(stderr=True))
        taken = time.perf_counter() - start
    print(f"{', '.join(formats)}{' with float files' if baseline else ''}: {taken:.1f} s", flush=True)
    if result.failures:
        raise SystemExit(f"not all files were made: {result.failures}")
    return taken


def formats_together() -> Bar:
    """Times each format, all of them, and all of them with their float files."""
    table = Table("formats", "float files as well", "s", "against the slowest alone")
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        # An export that no timed run asks for leaves the trained programs in the store.
        first = recipe(["onnx"], baseline=True).to_json() | {"exports": [{"use": "onnx", "opset": 17}]}
        edgeopt.run(parse_recipe(first), out=folder, console=Console(stderr=True))
        for baseline in (False, True):
            alone = {each: seconds([each], Path(folder), baseline=baseline) for each in FORMATS}
            together = seconds(FORMATS, Path(folder), baseline=baseline)
            slowest = max(alone.values())
            for name, taken in (*alone.items(), (", ".join(FORMATS), together)):
                table.add_row(name, "yes" if baseline else "no", f"{taken:.1f}", f"{taken / slowest:.2f}")
            ratios[baseline] = together / slowest
    Console(width=100).print(table)
    return Bar("all formats against the slowest alone", ratios[False], LIMIT)


def turn(side: str, folder: Path) -> tuple[float, list[list[float]]]:
    """CPU seconds of one `.pte`, made in a process of its own, and what it answers."""
    command = [sys.executable, str(Path(__file__).with_name("pte_turn.py")), side, str(folder / f"{side}.pte")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["cpu_s"], answer["logits"]


def pte_against_plain(rounds: int) -> Bar:
    """Times both sides in turns, and requires equal logits."""
    ratios = []
    print(f"{'round':>5} {'edgeopt, CPU s':>16} {'script, CPU s':>16} {'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for index in range(rounds):
            ours, our_logits = turn("edgeopt", Path(folder))
            theirs, their_logits = turn("plain", Path(folder))
            if our_logits != their_logits or len({value for row in our_logits for value in row}) < len(our_logits):
                raise SystemExit("the two files do not compute the same, or nothing")
            ratios.append(ours / theirs)
            print(f"{index:>5} {ours:>16.1f} {theirs:>16.1f} {ours / theirs:>8.3f}", flush=True)
    return Bar("cpu of an int8 pte against a plain script", statistics.median(ratios), PTE_LIMIT)


def main() -> None:
    """Both parts, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("formats", "pte"))
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side of the second part")
    arguments = parser.parse_args()
    bars = []
    if arguments.only != "pte":
        bars.append(formats_together())
    if arguments.only != "formats":
        bars.append(pte_against_plain(arguments.rounds))
    finish(*bars)


if __name__ == "__main__":
    main()
