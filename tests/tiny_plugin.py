"""A complete set of plugins that need no training to speak of: images of stripes, a linear model, files of NumPy
arrays.
"""

from __future__ import annotations

import copy
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from edgeopt.errors import ExportError, NothingChangedError, PausedError
from edgeopt.options import DatasetOptions, Options
from edgeopt.plugins.accelerator import (
    Accelerator,
    AcceleratorAnswer,
    AcceleratorRequest,
    AskedOperator,
    Verdict,
)
from edgeopt.plugins.contexts import ExportContext, PassContext
from edgeopt.plugins.declarations import (
    DatasetPlugin,
    ExporterPlugin,
    Levels,
    ModelPlugin,
    PassPlugin,
    ProbePlugin,
)
from edgeopt.plugins.hookspecs import hookimpl
from edgeopt.plugins.operator_times import OperatorTime, OperatorTimesRequest
from edgeopt.tasks import TASKS
from edgeopt.types import (
    Change,
    Curve,
    ExportResult,
    Form,
    ModelState,
    PassRecord,
    RawDataset,
    TensorInfo,
    TrainingData,
)


class StripesOptions(DatasetOptions):
    images: int = Field(90, ge=1, description="how many images")


class StripedImages:
    """Class 0 is brighter at the left, 1 at the top, 2 in the middle."""

    def __init__(self, count: int) -> None:
        import numpy as np

        self.labels = np.arange(count, dtype=np.int64) % 3

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        import numpy as np

        noise = np.random.default_rng(index)
        image = noise.integers(0, 100, (16, 16), dtype=np.uint8)
        where = [np.s_[:, :6], np.s_[:6, :], np.s_[5:11, 5:11]][self.labels[index]]
        image[where] += 120
        return image


def load_stripes(options: StripesOptions) -> RawDataset:
    return RawDataset(("left", "top", "middle"), {"train": StripedImages(options.images)})


class LinearOptions(Options):
    weights: str = Field("none", description='"of-others" are weights of other classes, without a head')


def build_linear(options: LinearOptions, data: TrainingData) -> ModelState:
    from torch import nn

    size = data.preprocessing.image_size
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, len(data.classes)))
    untrained = ("1",) if options.weights == "of-others" else ()
    task = TASKS["classification"]
    return ModelState(model, Form.MODULE, task, data.classes, data.preprocessing, untrained=untrained)


class FitOptions(Options):
    epochs: int = Field(3, ge=1, description="rounds over the images")
    seconds: float = Field(0.0, ge=0, description="time to take for each round, so that tests can kill it")


def fit_stripes(state: ModelState, options: FitOptions, context: PassContext) -> ModelState:
    import torch

    model = copy.deepcopy(state.model)
    data = context.data
    images = torch.from_numpy(data.preprocessing.normalize(data.train.pixels(range(len(data.train)))))
    labels = torch.from_numpy(data.train.labels[:])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    checkpoint = context.work_dir / "epoch.pt"
    start = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        start = saved["epoch"]
    losses = []
    with context.progress.bar("fit", options.epochs) as bar:
        for epoch in range(start, options.epochs):
            loss = state.task.loss((model(images),), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            pending = checkpoint.with_suffix(".new")
            torch.save({"model": model.state_dict(), "epoch": epoch + 1}, pending)
            pending.replace(checkpoint)
            time.sleep(options.seconds)
            bar.advance()
            if context.pause_epochs is not None and context.pause_epochs <= epoch + 1 < options.epochs:
                raise PausedError(epoch + 1, loss.item())
    curve = Curve("loss", tuple(range(len(losses))), tuple(losses))
    record = PassRecord("fit-stripes", {"resumed_at": start, "epochs": options.epochs}, (curve,))
    return state.after(record, model)


class RoundOptions(Options):
    steps: int = Field(64, ge=1, le=4096, description="grid steps a unit")
    on: Literal["weights", "nothing"] = Field("weights", description="what to round")


def round_weights(state: ModelState, options: RoundOptions, context: PassContext) -> ModelState:
    import torch

    model = copy.deepcopy(state.model)
    if options.on == "nothing":
        raise NothingChangedError("no weight was rounded", hint='set on = "weights"')
    count = 0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter * options.steps).round() / options.steps)
            count += parameter.numel()
    return state.after(PassRecord("round-weights", {"weights_rounded": count}), model)


class HalveOptions(Options):
    pass


def halve_weights(state: ModelState, options: HalveOptions, context: PassContext) -> ModelState:
    import torch

    model = copy.deepcopy(state.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    return state.after(PassRecord("halve-weights", {"augmented": context.data.augmentation.contrast > 0}), model)


class DimOptions(Options):
    seconds: float = Field(0.0, ge=0, description="time to take for each batch, so that tests can kill it")


class DimProbe:
    """Takes a share of the light from what enters a layer."""

    def __init__(self, network: Any, seconds: float) -> None:
        self.layers, self.seconds = list(network.layers), seconds

    def change(self, layer: str, level: float) -> Change:
        def dim(values: Any) -> Any:
            time.sleep(self.seconds)
            return values * (1 - level)

        return Change(None, dim)


class NpzOptions(Options):
    fail: Literal[
        "", "user", "crash", "bug", "overflow", "abort-later", "hang-later", "hang-at-once", "hang-export"
    ] = Field("", description="how to fail, for tests")
    only: Literal["", "baseline", "optimized"] = Field("", description="fail for this role only")
    takes: int = Field(0, ge=0, description="the one number of images that a call may have; any where it is 0")


def export_npz(state: ModelState, options: NpzOptions, context: ExportContext) -> ExportResult:
    import numpy as np

    failure = options.fail if options.only in ("", context.card.role) else ""
    match failure:
        case "user":
            raise ExportError("operator 'frobnicate' is unknown", hint="leave it out")
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "bug":
            raise ZeroDivisionError("a bug")
        case "hang-export":
            time.sleep(100_000)
    weights = {name: value.detach().numpy() for name, value in state.model.state_dict.items()}
    weight = next(value for name, value in weights.items() if name.endswith("weight"))
    bias = next(value for name, value in weights.items() if name.endswith("bias"))
    if failure == "overflow":
        weight = weight * np.float32("nan")
    with context.path.open("wb") as file:
        np.savez(file, weight=weight, bias=bias, failure=np.array(failure), takes=np.array(options.takes))
    size = state.preprocessing.image_size
    return ExportResult(
        TensorInfo("input", "float32", ("batch", 3, size, size), "NCHW"),
        (TensorInfo("logits", "float32", ("batch", len(state.classes)), "NC"),),
        delegated_share=1.0,
        batch_dependent=options.takes > 1,
    )


class NpzPredictor:
    def __init__(self, path: Path) -> None:
        import numpy as np

        arrays = np.load(path)
        self.weight, self.bias = arrays["weight"], arrays["bias"]
        self.failure, self.calls, self.takes = str(arrays["failure"]), 0, int(arrays["takes"])

    def predict(self, batch: Any) -> Any:
        self.calls += 1
        if self.takes not in (0, len(batch)):
            raise ExportError(f"a call has {len(batch)} images, not {self.takes}")
        if self.failure == "abort-later" and self.calls == 5:
            os.abort()
        if self.failure == "hang-at-once" or (self.failure == "hang-later" and self.calls == 5):
            time.sleep(100_000)
        return (batch.reshape(len(batch), -1) @ self.weight.T + self.bias,)


def time_npz(request: OperatorTimesRequest) -> list[OperatorTime]:
    """The product and the sum, each by itself."""
    file = NpzPredictor(request.path)
    flat = request.batch.reshape(len(request.batch), -1)
    took: dict[str, list[float]] = {"product": [], "sum": []}
    for _ in range(request.warmup + request.runs):
        start = time.perf_counter()
        product = flat @ file.weight.T
        middle = time.perf_counter()
        product + file.bias
        took["product"].append(middle - start)
        took["sum"].append(time.perf_counter() - middle)
    return [
        OperatorTime(name, name.title(), 1e3 * sorted(times)[len(times) // 2], "linear" if name == "product" else "")
        for name, times in took.items()
    ]


def ask_npz(request: AcceleratorRequest) -> AcceleratorAnswer:
    """The product runs on the accelerator, the sum on the CPU, or nowhere in files for calls of two images."""
    file = NpzPredictor(request.write())
    assert file.weight.shape[0] == len(request.state.classes)
    summed = Verdict.REFUSED if file.takes == 2 else Verdict.FALLS_BACK
    operators = (
        AskedOperator("product", Verdict.RUNS, place="linear"),
        AskedOperator("sum", summed, "it has no adder", "linear"),
    )
    return AcceleratorAnswer(operators, 1, "its makers")


@hookimpl
def edgeopt_datasets() -> Iterator[DatasetPlugin]:
    yield DatasetPlugin(
        "stripes",
        "Bright stripes.",
        StripesOptions,
        load=load_stripes,
        fingerprint=lambda options: str(options.images),
    )


@hookimpl
def edgeopt_models() -> Iterator[ModelPlugin]:
    yield ModelPlugin("linear", "One linear layer.", LinearOptions, build=build_linear)


@hookimpl
def edgeopt_passes() -> Iterator[PassPlugin]:
    yield PassPlugin("fit-stripes", "Gradient descent on all images.", FitOptions, apply=fit_stripes, optimizes=False)
    yield PassPlugin(
        "halve-weights", "Halves weights.", HalveOptions, apply=halve_weights, optimizes=False, trains=False
    )
    yield PassPlugin("round-weights", "Rounds weights to a grid.", RoundOptions, apply=round_weights, trains=False)


@hookimpl
def edgeopt_probes() -> Iterator[ProbePlugin]:
    yield ProbePlugin(
        "light",
        "Less light.",
        DimOptions,
        prepare=lambda network, calibration, options: DimProbe(network, options.seconds),
        levels=Levels((0.5, 0.9), 0.01, 0.99, untouched=0.0),
    )


@hookimpl
def edgeopt_exporters() -> Iterator[ExporterPlugin]:
    yield ExporterPlugin(
        "npz",
        "Arrays of NumPy.",
        NpzOptions,
        export=export_npz,
        open=lambda path, threads: NpzPredictor(path),
        operator_times=time_npz,
        accelerators=(Accelerator("tiny-npu", "An accelerator of products.", ask_npz),),
        runtime="numpy",
        suffix=".npz",
    )
