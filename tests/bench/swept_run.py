"""A finished run that is made by hand: a small network in int8, its ONNX file, and a store with what a run keeps of
it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report.sample import make_report, make_row
from torch import nn
from torch.export import Dim, export
from torch.fx import GraphModule

from edgeopt.arrays import OUTPUTS, save_outputs
from edgeopt.data.cache import load_test, load_training, opener
from edgeopt.data.prepare import prepare, preprocessing_of
from edgeopt.export.make import make_artifact
from edgeopt.networks.capture import program_outputs
from edgeopt.networks.saved import save_state
from edgeopt.pipeline.record import RunRecord
from edgeopt.plugins import DatasetPlugin, ExporterPlugin, Form, ModelState, Role
from edgeopt.plugins.registry import Registry
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import resolve
from edgeopt.tasks import TASKS
from edgeopt.types import Split
from edgeopt.workers.store import Store

SIZE, IMAGES = 16, 90
DATASET = {"use": "digits", "image_size": SIZE, "limit": IMAGES}


def make_net() -> nn.Sequential:
    """Two convolutions and a head over the mean of all places, so that images of any size fit."""
    generator = torch.Generator().manual_seed(0)
    first, second, head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 12, 3, 2, 1), nn.Linear(12, 10)
    net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    for parameter in net.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return net.eval()


@dataclass(frozen=True)
class SweptRun:
    """The folder, its optimized file, and the network after it was quantized."""

    folder: Path
    file: Path
    quantized: GraphModule


def make_run(out: Path, registry: Registry) -> SweptRun:
    net, store, keys = make_net(), Store(out / ".store"), _keys()
    dataset = resolve(DatasetPlugin, "digits", {name: DATASET[name] for name in DATASET if name != "use"}, registry)
    raw = dataset.plugin.load(dataset.options)
    data = store.compute(keys["data"], lambda folder: _kept(prepare(raw, dataset.options, folder, Silent()))).folder
    training = load_training(data, dataset.options, opener(data, lambda: raw))
    preprocessing = preprocessing_of(dataset.options)
    images = torch.from_numpy(preprocessing.normalize(training.train.pixels(range(32))))
    converted = _quantized(net, images)
    state = ModelState(net, Form.MODULE, TASKS["classification"], training.classes, preprocessing)
    batch = ({0: Dim("batch", min=1, max=1024)},)
    program, before = (export(each, (images[:2],), dynamic_shapes=batch) for each in (converted, net))
    imports = ("torch.ao.quantization.fx._decomposed",)
    int8 = replace(state, model=program, form=Form.PROGRAM, precision="int8", imports=imports)
    for name, each in {"model": state, "pass-0-ptq": int8}.items():
        store.compute(keys[name], lambda folder, each=each: _kept(save_state(each, folder)))
    test = load_test(data, opener(data, lambda: raw))
    for name, each in {"program-baseline": replace(int8, model=before), "program-optimized": int8}.items():
        store.compute(keys[name], lambda folder, each=each: _kept(_save_program(each, test, folder)))
    use = resolve(ExporterPlugin, "onnx", {"dynamic_batch": False}, registry)
    (folder := out / "made" / "onnx" / "optimized").mkdir(parents=True)
    made = make_artifact(
        use, int8, folder, role=Role.OPTIMIZED, recipe={}, calibration=training.calibration, progress=Silent(), seed=0
    )
    (folder / "card.json").write_text(made.card.to_json())
    row = make_row(Role.OPTIMIZED, "onnx", suffix=".onnx", size_bytes=made.size_bytes)
    rows = [replace(row, precision="int8", runtime="onnxruntime", sha256=made.sha256)]
    report = make_report(tuple(rows))
    recipe = replace(report.recipe, name="made", resolved=_resolved())
    (out / "made" / "report.json").write_text(
        replace(report, recipe=recipe, float_model=keys["model"]).to_json(), encoding="utf-8"
    )
    RunRecord(keys).write(out / "made")
    return SweptRun(out / "made", folder / made.path.name, converted)


def _save_program(state: ModelState, test: Split, folder: Path) -> None:
    save_state(state, folder)
    save_outputs(folder / OUTPUTS, program_outputs(state, test, Silent(), "program"))


def _quantized(net: nn.Module, images: torch.Tensor) -> GraphModule:
    from edgeopt_executorch.quantizer import build_xnnpack
    from edgeopt_torchao.quantize.convert import convert
    from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq

    program = export(net, (images[:2],), dynamic_shapes=({0: Dim("batch")},))
    prepared = prepare_ptq(program, build_xnnpack(per_channel=True, qat=False), lambda _model: None)
    calibrate(prepared, iter([images]))
    return convert(prepared)


def _keys() -> dict[str, str]:
    names = ("data", "model", "pass-0-ptq", "program-baseline", "program-optimized")
    return {name: f"{number:02x}" * 32 for number, name in enumerate(names, 1)}


def _resolved() -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "made",
        "dataset": DATASET,
        "model": {"use": "torchvision", "arch": "resnet18"},
        "passes": [{"use": "ptq", "quantizer": {"use": "xnnpack", "per_channel": True}}],
        "exports": [{"use": "onnx", "name": "onnx", "dynamic_batch": False}],
        "measure": {"threads": 1, "sweep": {"sizes": [24], "batches": [1]}},
    }


def _kept(_made: object) -> dict[str, Any]:
    return {}


def scales_of(file: Path) -> list[float]:
    """All scales of an ONNX file, in order of size."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(file).graph
    values = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    names = {node.input[1] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    return sorted(float(scale) for name in names for scale in np.ravel(values[name]))
