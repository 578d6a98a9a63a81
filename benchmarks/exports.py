"""All formats of a recipe against the slowest one alone: seconds from a cached program to the report, in one run.

MobileNetV3-small at 64 px, quantized after training. Files are made side by side, one a core. The bar stands for the
files that the recipe asks for; the last rows have the float files as well that are made beside them by default.
"""

from __future__ import annotations

import argparse
import shutil
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


def main() -> None:
    """Times each format, all of them, and all of them with their float files."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    table = Table("formats", "float files as well", "s", "against the slowest alone")
    bars = []
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
            if not baseline:
                bars.append(Bar("all formats against the slowest alone", together / slowest, LIMIT))
    Console(width=100).print(table)
    finish(*bars)


if __name__ == "__main__":
    main()
