"""A small network in int8, its files, and the folder of a run that is said to have made one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report.sample import make_report, make_row
from torch import nn
from torch.export import Dim, ExportedProgram, export
from torch.fx import GraphModule

from edgeopt.data.cache import DESCRIPTION, split_file
from edgeopt.export.make import make_artifact
from edgeopt.fingerprint import file_digest
from edgeopt.networks.saved import save_state
from edgeopt.pipeline.record import RunRecord
from edgeopt.plugins import ExporterPlugin, Form, ModelState, Role, TapRequest, Use
from edgeopt.plugins.registry import Registry
from edgeopt.preprocessing import Preprocessing
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import resolve
from edgeopt.report.schema import Row
from edgeopt.tasks import TASKS
from edgeopt.testing.values import ArraySplit
from edgeopt.why.worker import Looked, look_at
from edgeopt.workers.store import Store

SIZE, CLASSES = 16, 5


class Net(nn.Module):
    """Three blocks, the middle one in a residual, and a head. Whatever enters `second`, its first channel is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (
            nn.Conv2d(3, 12, 3, 2, 1),
            nn.Conv2d(12, 12, 3, 1, 1),
            nn.Conv2d(12, 16, 3, 2, 1),
        )
        self.head = nn.Linear(16, CLASSES)
        with torch.no_grad():
            self.first.weight[0] = 0
            self.first.bias[0] = -1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = x + torch.relu(self.second(x))
        x = torch.relu(self.third(x))
        return self.head(x.mean((2, 3)))


def program_of(net: nn.Module) -> ExportedProgram:
    return export(net.eval(), (torch.randn(2, 3, SIZE, SIZE),), dynamic_shapes=({0: Dim("batch")},))


def quantized(net: nn.Module) -> GraphModule:
    from edgeopt_executorch.quantizer import build_xnnpack
    from edgeopt_torchao.quantize.convert import convert
    from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq

    prepared = prepare_ptq(program_of(net), build_xnnpack(per_channel=True, qat=False), lambda _model: None)
    calibrate(prepared, iter([torch.from_numpy(preprocessing().normalize(drawn(64).images))]))
    return convert(prepared)


def preprocessing() -> Preprocessing:
    return Preprocessing(SIZE, resize=SIZE, crop=SIZE)


def drawn(count: int, seed: int = 3) -> ArraySplit:
    noise = np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return ArraySplit(noise, np.zeros(count, dtype=np.int64))


def state_of(program: ExportedProgram, precision: str = "int8") -> ModelState:
    names = tuple(map(str, range(CLASSES)))
    state = ModelState(program, Form.PROGRAM, TASKS["classification"], names, preprocessing(), precision)
    return replace(state, imports=("torch.ao.quantization.fx._decomposed",))


def exported(state: ModelState, runtime: str, registry: Registry, folder: Path) -> tuple[Use[ExporterPlugin], Path]:
    use = resolve(ExporterPlugin, runtime, {}, registry)
    made = make_artifact(
        use, state, folder, role=Role.OPTIMIZED, recipe={}, calibration=drawn(8), progress=Silent(), seed=0
    )
    (folder / "card.json").write_text(made.card.to_json())
    return use, made.path


def looked(use: Use[ExporterPlugin], path: Path, state: ModelState, images: int = 12) -> Looked:
    folder = path.parent / "tapped"
    folder.mkdir(exist_ok=True)
    request = TapRequest(path, state, use.options, (), 1, folder)
    return look_at(use.plugin, request, drawn(images, seed=5), images, Silent())


def finished_run(out: Path, state: ModelState, registry: Registry) -> Path:
    """The folder of a run with an ONNX file in int8, one in float and others that cannot be looked at, and a store with
    what a run keeps of them.
    """
    store, keys = Store(out / ".store"), {"program-optimized": "aa" * 32, "data": "bb" * 32}
    store.compute(keys["program-optimized"], lambda folder: _kept(lambda: save_state(state, folder)))
    store.compute(keys["data"], lambda folder: _kept(lambda: _keep_images(folder)))
    run = out / "made"
    (run / "onnx" / "optimized").mkdir(parents=True)
    _, path = exported(state, "onnx", registry, run / "onnx" / "optimized")
    rows = [
        _row("onnx", Role.OPTIMIZED, "int8", sha256=file_digest(path)),
        _row("onnx", Role.BASELINE, "float32"),
        _row("half", Role.OPTIMIZED, "float16", converted=True),
        _row("npz", Role.OPTIMIZED, "int8"),
    ]
    for row in rows[1:]:
        (run / row.file).parent.mkdir(parents=True, exist_ok=True)
        (run / row.file).write_bytes(row.file.encode())
    report = make_report(tuple(rows))
    report = replace(report, recipe=replace(report.recipe, name="made", resolved=_resolved()))
    (run / "report.json").write_text(report.to_json())
    RunRecord(keys).write(run)
    return run


def _row(export: str, role: Role, precision: str, **changes: Any) -> Row:
    suffix = ".npz" if export == "npz" else ".onnx"
    row = make_row(role, export, suffix=suffix)
    return replace(row, precision=precision, runtime="numpy" if export == "npz" else "onnxruntime", **changes)


def _resolved() -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "made",
        "dataset": {"use": "digits", "image_size": SIZE, "shares": {"calibration": 0.1}},
        "model": {"use": "torchvision", "arch": "resnet18"},
        "passes": [{"use": "ptq", "quantizer": {"use": "xnnpack", "per_channel": True}, "layer_bits": {}}],
        "exports": [
            {"use": "onnx", "name": "onnx"},
            {"use": "onnx", "name": "half", "precision": "float16"},
            {"use": "npz", "name": "npz"},
        ],
    }


def _kept(write: Any) -> dict[str, Any]:
    write()
    return {}


def _keep_images(folder: Path) -> None:
    split = drawn(12, seed=5)
    np.save(split_file(folder, "validation", "labels"), split.labels)
    np.save(split_file(folder, "validation", "pixels"), split.images)
    description = {"splits": {"validation": {"cached": True}}, "preprocessing": preprocessing().to_json()}
    (folder / DESCRIPTION).write_text(json.dumps(description))
