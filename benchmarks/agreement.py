"""Top-1 agreement of int8 files with their program, for models that were trained on the digits, in every runtime.

Each model goes through a recipe of its own: train, ptq, three exports, each file opened in its runtime on 270 test
images.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bars import Bar, finish
from rich.console import Console
from rich.table import Table

import edgeopt
from edgeopt.recipe.read import parse_recipe

MODELS = (
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "resnet18",
    "resnet50",
    "squeezenet1_1",
    "efficientnet_b0",
)
LIMIT = 0.99
#: Epochs of those that learn more slowly: where many answers are close, any rounding turns some of them.
_TIMES = {"mobilenet_v3_large": 2, "efficientnet_b0": 4}


def recipe(model: str, epochs: int, threads: int) -> edgeopt.Recipe:
    """Trains one model on the digits at 64 px and quantizes it after training."""
    if model.startswith("squeezenet"):  # it has no BatchNorm: small steps, and more of them
        epochs, rate = 4 * epochs, 5e-4
    else:
        epochs, rate = _TIMES.get(model, 1) * epochs, 3e-3
    return parse_recipe(
        {
            "schema": 1,
            "name": f"agreement-{model.replace('_', '-')}",
            "baseline": False,
            "dataset": {"use": "digits", "image_size": 64},
            "model": {"use": "torchvision", "arch": model},
            "passes": [
                {"use": "train", "epochs": epochs, "learning_rate": rate, "schedule": "one-cycle"},
                {"use": "ptq", "quantizer": "xnnpack"},
            ],
            "exports": [{"use": "executorch"}, {"use": "onnx"}, {"use": "tflite"}],
            "trainer": {"threads": threads},
            "measure": {"runs": 20, "rounds": 2},
        }
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the recipes and judges every file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, help="models of torchvision")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of training")
    parser.add_argument("--threads", type=int, default=2, help="threads of training; 1 on a busy machine")
    parser.add_argument("--out", type=Path, help="keep the runs here; finished stages are not repeated")
    given = parser.parse_args(argv)
    table = Table("model", "runtime", "float program", "int8 file", "agreement")
    bars = []
    with tempfile.TemporaryDirectory() as temporary:
        for model in given.models:
            result = edgeopt.run(
                recipe(model, given.epochs, given.threads),
                out=given.out or Path(temporary),
                console=Console(stderr=True),
            )
            for row in result.report.rows:
                agreement = row.agreement or 0.0
                accuracy = [
                    f"{100 * value:.1f} %"
                    for value in (result.report.programs[0].test_accuracy, row.test_accuracy or 0)
                ]
                table.add_row(model, row.runtime, *accuracy, f"{100 * agreement:.2f} %")
                bars.append(Bar(f"{model} in {row.runtime}", agreement, LIMIT, at_least=True))
    Console(width=100).print(table)
    finish(*bars)


if __name__ == "__main__":
    main()
