"""Plugins at the edges of the export contract: a converting exporter, files that cannot run here, a model of another
framework.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from edgeopt.errors import Problem
from edgeopt.options import ExporterOptions, Options
from edgeopt.plugins.contexts import ExportContext
from edgeopt.plugins.declarations import ExporterPlugin, ModelPlugin, Numerics, QuantizerPlugin, ReaderPlugin
from edgeopt.plugins.hookspecs import hookimpl
from edgeopt.preprocessing import Preprocessing
from edgeopt.tasks import TASKS
from edgeopt.types import ExportResult, Form, ModelState, TensorInfo, TrainingData


class HalvesOptions(ExporterOptions):
    precision: Literal["program", "float16"] = Field("program", description="of the weights")
    place: Literal["here", "device", "stand-in"] = Field("here", description="where the file runs")
    apart: bool = Field(False, description="put the bias into a file of its own, readable by its owner alone")
    named: bool = Field(True, description="name that file among the companions")
    source: bool = Field(False, description="write a line of source code beside the file")


def export_halves(state: ModelState, options: HalvesOptions, context: ExportContext) -> ExportResult:
    import numpy as np

    weights = {name: value.detach().numpy() for name, value in state.program.state_dict.items()}
    kind = np.float16 if options.precision == "float16" else np.float32
    weight = next(value for name, value in weights.items() if name.endswith("weight")).astype(kind)
    bias = next(value for name, value in weights.items() if name.endswith("bias"))
    if options.apart:
        np.save(context.path.with_name("model.bias.npy"), bias)
        context.path.with_name("model.bias.npy").chmod(0o600)
    with context.path.open("wb") as file:
        np.savez(file, weight=weight, bias=np.empty(0) if options.apart else bias, seen=len(context.calibration))
    return _described(
        state,
        beside=_source_of(context) if options.source else (),
        precision="float16" if options.precision == "float16" else "",
        not_run="the abacus is at home" if options.place == "device" else "",
        stand_in="fingers" if options.place == "stand-in" else "",
        companions=("model.bias.npy",) if options.apart and options.named else (),
    )


def _source_of(context: ExportContext) -> tuple[str, ...]:
    code = context.path.with_suffix(".h")
    code.write_text("// halves\n")
    return (code.name,)


def _described(state: ModelState, **more: Any) -> ExportResult:
    size = state.preprocessing.image_size
    return ExportResult(
        TensorInfo("input", "float32", ("batch", 3, size, size), "NCHW"),
        (TensorInfo("logits", "float32", ("batch", len(state.classes)), "NC"),),
        **more,
    )


class HalvesPredictor:
    def __init__(self, path: Path) -> None:
        import numpy as np

        arrays = np.load(path)
        self.weight, self.bias = arrays["weight"].astype(np.float32), arrays["bias"]
        if not len(self.bias):
            self.bias = np.load(path.with_name("model.bias.npy"))

    def predict(self, batch: Any) -> Any:
        return ((batch.reshape(len(batch), -1) @ self.weight.T + self.bias).astype("float32"),)


def float_options(options: HalvesOptions) -> HalvesOptions:
    return options.model_copy(update={"precision": "program"})


def check(options: HalvesOptions, numerics: Numerics) -> Iterator[Problem]:
    for quantizer in numerics.quantizers:
        yield Problem(f"halves cannot take {quantizer.name}", "leave it out", option="precision")


@dataclass(frozen=True)
class AbacusModel:
    """A linear model in NumPy. No process that has one may import torch."""

    weight: Any

    loader = "abacus_model:load"

    @property
    def parameter_count(self) -> int:
        return self.weight.size

    def save(self, folder: Path) -> None:
        import numpy as np

        np.save(folder / "weight.npy", self.weight)

    def outputs(self, batch: Any) -> Any:
        assert "torch" not in sys.modules
        return (batch.reshape(len(batch), -1) @ self.weight.T,)


def build_abacus(options: Options, data: TrainingData) -> ModelState:
    from abacus_model import random_model

    size = data.preprocessing.image_size
    return _abacus_state(random_model(len(data.classes), size), data.classes, data.preprocessing)


def _abacus_state(model: AbacusModel, classes: tuple[str, ...], preprocessing: Preprocessing) -> ModelState:
    return ModelState(model, Form.MODULE, TASKS["classification"], classes, preprocessing, framework="abacus")


def read_abacus(path: Path, options: Options) -> ModelState:
    from abacus_model import load

    model = load(path.parent)
    classes = tuple(str(index) for index in range(len(model.weight)))
    size = round((model.weight.shape[1] / 3) ** 0.5)
    return _abacus_state(model, classes, Preprocessing(size, size, size))


class AbacusOptions(Options):
    lie: bool = Field(False, description="write another model than the one given")
    source: bool = Field(False, description="write a line of source code beside the file")


def export_abacus(state: ModelState, options: AbacusOptions, context: ExportContext) -> ExportResult:
    import numpy as np

    assert "torch" not in sys.modules
    weight = -state.foreign.weight if options.lie else state.foreign.weight
    with context.path.open("wb") as file:
        np.savez(file, weight=weight, bias=np.zeros(len(weight), np.float32))
    return _described(state, beside=_source_of(context) if options.source else ())


@hookimpl
def edgeopt_models() -> Iterator[ModelPlugin]:
    yield ModelPlugin("abacus", "A linear model in NumPy.", Options, build=build_abacus, framework="abacus")


@hookimpl
def edgeopt_quantizers() -> Iterator[QuantizerPlugin]:
    yield QuantizerPlugin("beads", "Counts beads.", Options, build=lambda options, qat: None, scheme="other")


@hookimpl
def edgeopt_exporters() -> Iterator[ExporterPlugin]:
    yield ExporterPlugin(
        "halves",
        "Arrays, of half the size if asked to.",
        HalvesOptions,
        export=export_halves,
        open=lambda path, threads: HalvesPredictor(path),
        runtime="numpy",
        suffix=".npz",
        baseline=float_options,
        check=check,
        companions=lambda path: tuple(path.parent.glob("model.bias.npy")),
    )
    yield ExporterPlugin(
        "abacus-npz",
        "Arrays of an abacus.",
        AbacusOptions,
        export=export_abacus,
        open=lambda path, threads: HalvesPredictor(path),
        runtime="numpy",
        suffix=".npz",
        framework="abacus",
        format="npz",
    )


@hookimpl
def edgeopt_readers() -> Iterator[ReaderPlugin]:
    yield ReaderPlugin(
        "abacus", "A file with weights.", Options, read=read_abacus, suffixes=(".npy",), framework="abacus"
    )
