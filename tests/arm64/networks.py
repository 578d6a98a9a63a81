"""Exports the files of a small network, float and int8, for each runtime: `python networks.py NETWORK FOLDER`.

A network's folder is laid out like that of a run: `<network>/<file>/<role>/model.onnx`, its card beside it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from edgeopt.arrays import Json
from edgeopt.export.make import make_artifact
from edgeopt.networks.capture import to_program
from edgeopt.networks.heads import float_state
from edgeopt.plugins.declarations import ExporterPlugin, PassPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import pass_context, tiny_data, tiny_model
from edgeopt.types import ModelState, Role, TrainingData
from edgeopt_torchvision.compat import import_torchvision

IMAGE_SIZE = 64
CLASSES = 10


@dataclass(frozen=True)
class File:
    """A file to export: its folder, the plugin that writes it, and the plugin's options."""

    folder: str
    exporter: str
    options: dict[str, Json]


#: The float program's files; then the int8 program's, where ONNX has one for each processor's kernels.
FLOAT = (File("onnx", "onnx", {}), File("tflite", "tflite", {}), File("ncnn", "ncnn", {}))
HALF = (File("ncnn-half", "ncnn", {"precision": "float16"}),)
INT8 = (File("onnx", "onnx", {}), File("onnx-arm", "onnx", {"target": "arm"}), File("tflite", "tflite", {}))
NCNN = (File("ncnn", "ncnn", {}),)


def export(name: str, folder: Path) -> None:
    """Writes the files of one network into a folder of its name in `folder`."""
    torch.manual_seed(0)
    registry = load_registry()
    data = tiny_data(CLASSES, IMAGE_SIZE)
    state = NETWORKS[name](data)
    settle_batch_norm(state, data)

    def quantized(quantizer: str) -> ModelState:
        ptq = resolve(PassPlugin, "ptq", {"quantizer": quantizer}, registry)
        with tempfile.TemporaryDirectory() as work:
            rounded: ModelState = ptq.plugin.apply(state, ptq.options, pass_context(Path(work), data))
        return rounded

    for role, program, files in (
        (Role.BASELINE, to_program(state, data.validation), FLOAT),
        (Role.OPTIMIZED, to_program(state, data.validation), HALF),
        (Role.OPTIMIZED, quantized("xnnpack"), INT8),
        (Role.OPTIMIZED, quantized("ncnn"), NCNN),
    ):
        for file in files:
            target = folder / name / file.folder / role
            target.mkdir(parents=True)
            made = make_artifact(
                resolve(ExporterPlugin, file.exporter, file.options, registry),
                program,
                target,
                role=role,
                recipe={"name": name},
                calibration=data.calibration,
                progress=Silent(),
                seed=0,
            )
            (target / "card.json").write_text(made.card.to_json())


def mobile(data: TrainingData) -> ModelState:
    """Two of MobileNetV3's blocks, in its widths: hard-swish, squeeze-and-excitation, both kernel
    sizes, no residual.
    """
    mobilenet = import_torchvision().models.mobilenetv3
    blocks = [
        mobilenet.InvertedResidualConfig(*sizes, width_mult=1.0)
        for sizes in (
            # channels in, kernel, expanded, out, squeeze-and-excitation, activation, stride, dilation
            (16, 3, 16, 16, True, "RE", 2, 1),
            (16, 5, 96, 40, True, "HS", 2, 1),
        )
    ]
    return float_state(mobilenet.MobileNetV3(blocks, last_channel=64, num_classes=CLASSES), data, facts={})


def settle_batch_norm(state: ModelState, data: TrainingData) -> None:
    """Gives an untrained network the statistics of its own inputs, without which its logits would hardly differ."""
    for module in state.module.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics become those of the batch
    state.module.train()
    with torch.no_grad():
        state.module(torch.from_numpy(state.preprocessing.normalize(data.train.pixels(slice(None)))))
    state.module.eval()


#: One with a residual, and one without, whose int8 files must therefore agree exactly in both runtimes.
NETWORKS: dict[str, Callable[[TrainingData], ModelState]] = {"residual": tiny_model, "mobile": mobile}

if __name__ == "__main__":
    export(sys.argv[1], Path(sys.argv[2]))
