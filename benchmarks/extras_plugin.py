"""A network and a file format that need nothing but torch: they stand beside an extra that has none of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.plugins import (
    TASKS,
    ExportContext,
    ExporterPlugin,
    ExportResult,
    Form,
    ModelPlugin,
    ModelState,
    Options,
    TensorInfo,
    TrainingData,
    hookimpl,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def build(_options: Options, data: TrainingData) -> ModelState:
    """Three convolutions, one of them depthwise, and a head."""
    from torch import nn

    network = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, len(data.classes))),
    )
    return ModelState(network, Form.MODULE, TASKS["classification"], data.classes, data.preprocessing)


def export(state: ModelState, _options: Options, context: ExportContext) -> ExportResult:
    """Writes the program as torch does."""
    import torch

    torch.export.save(state.program, context.path)
    size = state.preprocessing.image_size
    (node,) = (each for each in state.program.graph.nodes if each.op == "output")
    shapes = [tuple(each.meta["val"].shape)[1:] for each in node.args[0]]
    return ExportResult(
        input=TensorInfo("input", "float32", ("batch", 3, size, size), "NCHW"),
        outputs=tuple(
            TensorInfo(name, "float32", ("batch", *shape), "NC" if len(shape) == 1 else "")
            for name, shape in zip(state.output_names, shapes, strict=True)
        ),
    )


class TorchPredictor:
    """A program in torch."""

    def __init__(self, path: Path, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.module = torch.export.load(path).module()

    def predict(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """The outputs, float32 (n, ...): a classifier's are logits (n, classes) alone."""
        import torch

        with torch.no_grad():
            outputs = self.module(torch.from_numpy(batch))
        return tuple(each.numpy() for each in (outputs if isinstance(outputs, tuple) else (outputs,)))


@hookimpl
def edgeopt_models() -> Iterator[ModelPlugin]:
    """The network."""
    yield ModelPlugin("three-convolutions", "A network to try an installation with.", Options, build=build)


@hookimpl
def edgeopt_exporters() -> Iterator[ExporterPlugin]:
    """The format."""
    yield ExporterPlugin(
        "torch-program",
        "The program itself, run by torch.",
        Options,
        export=export,
        open=TorchPredictor,
        runtime="torch",
        suffix=".pt2",
    )
