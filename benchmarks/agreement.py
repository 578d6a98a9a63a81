"""Top-1 agreement of int8 files with their program, for models that were trained on the digits, in every runtime.

Each model goes through recipes of its own: train, ptq with XNNPACK's numerics and three exports, or with ncnn's and one,
each file opened in its runtime on 270 test images. One rule says how long each is trained: the epochs are doubled until the float model's report no longer says that
it was still learning. It looks at no file, so it cannot be bent until the files agree.
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
from edgeopt.report.training import training_of

MODELS = (
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "resnet18",
    "resnet50",
    "squeezenet1_1",
    "efficientnet_b0",
)
RUNTIMES = {"xnnpack": ("onnx", "executorch", "tflite", "openvino"), "ncnn": ("ncnn",)}
"""The exporters of each quantizer."""
LIMIT = 0.99
#: The most that the epochs are doubled.
_DOUBLINGS = 4


def recipe(model: str, epochs: int, threads: int, quantizer: str = "") -> edgeopt.Recipe:
    """Trains one model on the digits at 64 px, and quantizes it after training or, without a quantizer, writes one float
    file.
    """
    # without BatchNorm, as in squeezenet, large steps end in chance
    train = {"use": "train", "epochs": epochs, "learning_rate": 5e-4 if model.startswith("squeezenet") else 3e-3}
    passes = [{**train, "schedule": "one-cycle"}]
    if quantizer:
        passes.append({"use": "ptq", "quantizer": quantizer})
    return parse_recipe(
        {
            "schema": 1,
            "name": f"agreement-{model.replace('_', '-')}-{quantizer or 'float'}",
            "baseline": False,
            "dataset": {"use": "digits", "image_size": 64},
            "model": {"use": "torchvision", "arch": model},
            "passes": passes,
            "exports": [{"use": each} for each in RUNTIMES.get(quantizer, ("onnx",))],
            "trainer": {"threads": threads},
            "measure": {"runs": 20, "rounds": 2},
        }
    )


def learned_epochs(model: str, epochs: int, threads: int, out: Path, console: Console) -> int:
    """The epochs after which the float model's training had come to an end; at most `epochs` doubled four times."""
    for _ in range(_DOUBLINGS):
        float_recipe = recipe(model, epochs, threads)
        passes = edgeopt.run(float_recipe, out=out, console=console).report.passes
        if not training_of(passes, len(passes)).still_learning:
            break
        epochs *= 2
    return epochs


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the recipes and judges every file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, help="models of torchvision")
    parser.add_argument("--quantizers", nargs="+", choices=RUNTIMES, default=tuple(RUNTIMES), help="only these")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of training, doubled while a model still learns")
    parser.add_argument("--threads", type=int, default=2, help="threads of training; 1 on a busy machine")
    parser.add_argument("--out", type=Path, help="keep the runs here; finished stages are not repeated")
    given = parser.parse_args(argv)
    table = Table("model", "epochs", "runtime", "float program", "int8 file", "agreement")
    bars = []
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as temporary:
        out = given.out or Path(temporary)
        for model in given.models:
            epochs = learned_epochs(model, given.epochs, given.threads, out, console)
            for quantizer in given.quantizers:
                report = edgeopt.run(recipe(model, epochs, given.threads, quantizer), out=out, console=console).report
                for row in report.rows:
                    agreement = row.agreement or 0.0
                    accuracy = (report.programs[0].test_accuracy or 0, row.test_accuracy or 0)
                    shares = (f"{100 * value:.1f} %" for value in accuracy)
                    table.add_row(model, str(epochs), row.runtime, *shares, f"{100 * agreement:.2f} %")
                    bars.append(Bar(f"{model} in {row.runtime}", agreement, LIMIT, at_least=True))
    Console(width=100).print(table)
    finish(*bars)


if __name__ == "__main__":
    main()
