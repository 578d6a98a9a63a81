"""Files for microcontrollers against those that TensorFlow's converter makes of the same Keras network, and against float.

    python benchmarks/microcontrollers.py [--models ds_cnn ...] [--epochs 20]

Three networks, one channel, int8 in and out. RAM is the arena that TensorFlow Lite Micro's interpreter counts for either
file, flash the file; the Keras network is quantized by TensorFlow's own post-training quantization and stripped of
metadata as ours. Accuracy is of handwritten digits in grey, of which two in five are kept for it: the int8 file in that
interpreter, after training with its quantization, against the float program in PyTorch. `--epochs 0` leaves that out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from bars import Bar, finish
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from edgeopt.plugins import Footprint

RECIPE = """\
schema = 1
name = "mcu-{name}"

[dataset]
use = "digits"
image_size = 32
channels = 1
shares = {{ validation = 0.1, test = 0.4 }}

[dataset.augmentation]
crop_padding = 2

[model]
use = "mcu"
arch = "{arch}"

[[passes]]
use = "train"
epochs = {epochs}
learning_rate = 5e-3

[[passes]]
use = "qat"
epochs = 2

[[exports]]
use = "tflm"
"""
SIZES = {"ds_cnn": (49, 10), "person_detect": (96, 96), "mobilenet_v1_025": (96, 96)}
CLASSES = 12
ARENA_LIMIT = 1.02
DROP_LIMIT = 0.005
_KERAS = "--keras"  # in a process of its own: TensorFlow bears no torch beside it


def keras_file(arch: str, path: Path) -> None:
    """Writes TensorFlow's int8 file of the same network."""
    import tensorflow as tf
    from tensorflow.keras import layers

    from edgeopt_mcu import networks

    height, width = SIZES[arch]
    given = tf.keras.Input((height, width, 1), batch_size=1)

    def convolution(x: Any, made: int, kernel: tuple[int, int], stride: int, padding: tuple[int, int]) -> Any:
        """As `edgeopt_mcu.networks` has it; where the padding is that of the word "same", Keras would say so."""
        same = stride == 1
        if not same:
            x = layers.ZeroPadding2D(padding)(x)
        how = {"strides": stride, "padding": "same" if same else "valid", "use_bias": False}
        x = layers.Conv2D(made, kernel, **how)(x) if made else layers.DepthwiseConv2D(kernel, **how)(x)
        return layers.ReLU()(layers.BatchNormalization()(x))

    is_ds_cnn = arch == "ds_cnn"
    x = convolution(given, 64 if is_ds_cnn else 8, (10, 4) if is_ds_cnn else (3, 3), 2, (5, 1) if is_ds_cnn else (1, 1))
    for made, stride in networks.PLANS[arch]:
        x = convolution(convolution(x, 0, (3, 3), stride, (1, 1)), made, (1, 1), 1, (0, 0))
    model = tf.keras.Model(given, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    random = np.random.default_rng(0)
    images = random.standard_normal((20, 1, height, width, 1)).astype(np.float32)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())


def taken(path: Path) -> Footprint:
    """What a file takes in the interpreter, without what no board reads."""
    from edgeopt_tflite.graph import Graph
    from edgeopt_tflm.footprint import bare, footprint
    from edgeopt_tflm.interpreter import MicroFile

    graph = Graph(path.read_bytes())
    content = bare(graph)
    file = MicroFile(content, graph)
    file.run(np.zeros(graph.shape(int(graph.main.inputs[0])), np.int8))
    return footprint(content, file.arena(), graph, ())


def own_file(arch: str, folder: Path) -> Path:
    """The file of `tflm` of the network in int8, its ranges those of noise."""
    from edgeopt.plugins import ExporterPlugin, ModelPlugin
    from edgeopt.plugins.registry import load_registry
    from edgeopt.recipe.lookup import resolve
    from edgeopt.testing import pass_context, tiny_data
    from edgeopt.testing.exporter import export_file

    registry = load_registry()
    data = tiny_data(CLASSES, SIZES[arch], channels=1)
    model = resolve(ModelPlugin, "mcu", {"arch": arch}, registry)
    state = model.plugin.build(model.options, data)
    ptq = _ptq(registry)
    program = ptq.plugin.apply(state, ptq.options, pass_context(folder, data))
    path, _ = export_file(resolve(ExporterPlugin, "tflm", {}, registry), program, folder)
    return path


def _ptq(registry: Any) -> Any:
    from edgeopt.plugins.declarations import PassPlugin
    from edgeopt.recipe.lookup import resolve

    return resolve(PassPlugin, "ptq", {}, registry)


def accuracies(arch: str, epochs: int, out: Path) -> tuple[float, float, int]:
    """Of the float program and of the int8 file, and on how many test images."""
    import edgeopt

    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.toml"
        recipe.write_text(RECIPE.format(name=arch.replace("_", "-"), arch=arch, epochs=epochs))
        report = edgeopt.run(recipe, out=out).report
    (program,) = (each for each in report.programs if each.role == "baseline")
    (row,) = (each for each in report.rows if each.role == "optimized")
    assert program.test_accuracy is not None
    assert row.test_accuracy is not None
    return program.test_accuracy, row.test_accuracy, report.dataset.splits["test"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument(_KERAS, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.keras:
        keras_file(given.keras[0], Path(given.keras[1]))
        return
    table = Table("model", "arena", "of TensorFlow's", "flash", "of TensorFlow's", "float", "int8 file", "images")
    bars = []
    for arch in given.models:
        with tempfile.TemporaryDirectory() as folder:
            theirs = Path(folder) / "keras.tflite"
            subprocess.run([sys.executable, __file__, _KERAS, arch, str(theirs)], check=True, capture_output=True)
            (made := Path(folder) / "made").mkdir()
            own, reference = taken(own_file(arch, made)), taken(theirs)
        cells = ["–"] * 3
        bars.append(Bar(f"{arch}: arena against TensorFlow's", own.ram_bytes / reference.ram_bytes, ARENA_LIMIT))
        if given.epochs:
            before, after, count = accuracies(arch, given.epochs, given.out)
            cells = [f"{before:.2%}", f"{after:.2%}", str(count)]
            bars.append(Bar(f"{arch}: accuracy lost", before - after, DROP_LIMIT))
        ram, flash = f"{own.ram_bytes:,}", f"{own.flash_bytes:,}"
        table.add_row(arch, ram, f"{reference.ram_bytes:,}", flash, f"{reference.flash_bytes:,}", *cells)
    Console(width=140).print(table)
    finish(*bars)


if __name__ == "__main__":
    main()
