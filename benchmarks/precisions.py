"""Every precision that is made of a float model, in each runtime, on networks of real size: float16, dynamic and
weight-only int8.

Random weights with real BatchNorm statistics. A file is compared with the float model on the same images; what is
refused must be refused with a reason. Ends with a table (largest difference of a logit as a share of their range, and
times smaller than float), the reasons, and the bars.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from bars import Bar, finish
from rich.console import Console
from rich.progress import track
from rich.table import Table
from untrained import untrained_program

from edgeopt.errors import UserError
from edgeopt.networks.tracing import quick_tracing
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.testing.exporter import export_file
from edgeopt.types import ModelState

MODELS = (
    "mobilenet_v2",
    "mobilenet_v3_small",
    "resnet18",
    "squeezenet1_1",
    "efficientnet_b0",
    "shufflenet_v2_x1_0",
    "densenet121",
    "vgg11_bn",
    "convnext_tiny",
    "swin_t",
)
RUNTIMES = {"executorch": "ExecuTorch", "onnx": "ONNX Runtime", "tflite": "LiteRT"}
TOLERANCE = {"program": 1e-3, "float16": 0.02, "dynamic-int8": 0.15, "weight-only-int8": 0.15}
SIZE = 96
IMAGES = 8


@dataclass(frozen=True)
class Cell:
    """One file, or why there is none."""

    precision: str
    runtime: str
    difference: float = 0.0
    smaller: float = 1.0
    refused: str = ""
    bug: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether there is a file that computes something else."""
        return not (self.refused or self.bug) and self.difference > TOLERANCE[self.precision]

    def __str__(self) -> str:
        if self.refused or self.bug:
            return "refused" if self.refused else "bug"
        return f"{100 * self.difference:.1f} % {self.smaller:.1f}x" + (" wrong" if self.is_wrong else "")


def try_precisions(state: ModelState, runtimes: Sequence[str]) -> Iterator[Cell]:
    """All files of a network."""
    images = torch.randn(IMAGES, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = state.program.module(check_guards=False)(images).numpy()
    registry = load_registry()
    for runtime in runtimes:
        offered = resolve(ExporterPlugin, runtime, {}, registry).plugin.options.model_json_schema()
        whole_bytes = 0
        for precision in (each for each in TOLERANCE if each in offered["properties"]["precision"]["enum"]):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    use = resolve(ExporterPlugin, runtime, {"precision": precision}, registry)
                    file, _result = export_file(use, state, Path(folder))
                    logits = use.plugin.open(file, 2).predict(images.numpy())[0]
                except UserError as error:
                    yield Cell(precision, runtime, refused=str(error))
                except Exception as error:  # what a user would be asked to report
                    yield Cell(precision, runtime, bug=f"{type(error).__name__}: {error}")
                else:
                    size = file.stat().st_size
                    whole_bytes = whole_bytes or size
                    difference = float(np.abs(logits - expected).max() / np.ptp(expected))
                    yield Cell(precision, runtime, difference, whole_bytes / size)


def show(found: Mapping[str, Sequence[Cell]]) -> None:
    """The table, and the reasons below it."""
    columns = list(dict.fromkeys((cell.runtime, cell.precision) for cells in found.values() for cell in cells))
    table = Table("network", *(f"{RUNTIMES[runtime]} {precision}" for runtime, precision in columns))
    for arch, cells in found.items():
        table.add_row(arch, *map(str, cells))
    Console(width=190).print(table)
    for arch, cells in found.items():
        for cell in cells:
            if cell.refused or cell.bug:
                print(f"{arch}, {RUNTIMES[cell.runtime]} {cell.precision}: {cell.refused or cell.bug}")
    sys.stdout.flush()


def main() -> None:
    """Tries all networks, shows what came of them, and judges."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="models of torchvision")
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=RUNTIMES)
    given = parser.parse_args()
    found = {}
    with quick_tracing():
        for arch in track(given.models, "networks", console=Console(stderr=True)):
            found[arch] = list(try_precisions(untrained_program(arch, SIZE), given.runtimes))
    show(found)
    cells = [cell for each in found.values() for cell in each]
    finish(
        Bar("files that compute something else", sum(cell.is_wrong for cell in cells), 0),
        Bar("files that fail without a reason", sum(bool(cell.bug) for cell in cells), 0),
    )


if __name__ == "__main__":
    main()
