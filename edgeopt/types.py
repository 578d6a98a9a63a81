"""The values that flow through a run, all frozen.

```
DataBundle ─▶ ModelState ─▶ … ─▶ ModelState ─▶ ExportResult, file ─▶ Predictor
```

Importing this module is light: arrays and modules appear in annotations only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from edgeopt.arrays import InputKind, Json
from edgeopt.cards.card import Card as Card  # noqa: PLC0414 - exporters look for these here
from edgeopt.cards.card import Footprint as Footprint  # noqa: PLC0414 - as above
from edgeopt.cards.card import TensorInfo as TensorInfo  # noqa: PLC0414 - as above
from edgeopt.tasks.base import Task
from edgeopt.tasks.classification import Classification

if TYPE_CHECKING:  # numpy and torch are heavy, and only named here
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from edgeopt.arrays import Labels, Outputs, Pixels
    from edgeopt.options import Augmentation
    from edgeopt.preprocessing import Preprocessing


class Form(StrEnum):
    """What a pass takes and gives: a trainable module, or a captured program whose arithmetic is fixed."""

    MODULE = "module"
    PROGRAM = "program"


class Role(StrEnum):
    """Whether a file holds the float model that everything is compared with, or the optimized one."""

    BASELINE = "baseline"
    OPTIMIZED = "optimized"


# ---- data ----------------------------------------------------------------------------------------------------------


@runtime_checkable
class TargetedImages(Protocol):
    """What a dataset plugin gives for one split: images and their targets, read when asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any:
        """Image `index`, as `Images` gives it."""
        ...

    def target(self, index: int) -> Any:
        """What image `index` should be answered, in the form that the task takes; see the task.

        Raises `DataError` naming the file when it cannot be read.
        """
        ...


@runtime_checkable
class Images(Protocol):
    """What a dataset plugin gives for one split of `classification`: labelled images, read when asked for."""

    @property
    def labels(self) -> Labels:
        """Class index of each image, int64, shape (n,)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any:
        """Image `index` as a `PIL.Image.Image`, or as a uint8 array (height, width) or (height, width, 3).

        Raises `DataError` naming the file when it cannot be read.
        """
        ...


@dataclass(frozen=True)
class RawDataset:
    """Images as a dataset plugin found them, before classes are chosen and splits are drawn.

    `splits` holds "train" and, where the data set comes with them, "validation" and "test". Missing ones are drawn from
    "train" by seeded, stratified shares.

    Images of `classification` have labels, those of other tasks are `TargetedImages`. A task without classes has none.

    `groups` names, for each image of a split, what it belongs to, such as its speaker: a group is never divided.
    `copies`, int64 (n,), holds for each image of a split -1, or the place of the one that it is a changed copy of: a
    copy is trained on when its original is, and is in no other split.
    `warnings` says what the user should know of the data set, such as files that were left out.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, Any]
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    copies: Mapping[str, Labels] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSurvey:
    """What can be told of a data set without reading an image: how many images each split that it comes with has of
    each class, and what the user should know.
    """

    counts: Mapping[str, Mapping[str, int]]
    warnings: tuple[str, ...] = ()


class FoundData(Protocol):
    """What one look found, to be pickled for whoever reads the images; a survey is None where it needs these."""

    def fingerprint(self) -> str: ...

    def survey(self) -> DataSurvey | None: ...

    def load(self) -> RawDataset: ...


class Split(Protocol):
    """One split after `Preprocessing.pixels`: what every reader (training, evaluation, a runtime) sees."""

    @property
    def labels(self) -> Labels:
        """The targets of `classification`, the class index of each image: int64, shape (n,). A split of another task
        has `targets` besides, see `targets_of`.
        """
        ...

    def __len__(self) -> int: ...

    def pixels(self, indices: Sequence[int] | slice) -> Pixels:
        """Images as uint8, shape (n, height, width, channels), RGB or grey."""
        ...


def targets_of(split: Split) -> Any:
    """What the images of a split should be answered, as the task holds it; `[indices]` of it are those of some."""
    targets = getattr(split, "targets", None)
    return split.labels if targets is None else targets


@dataclass(frozen=True)
class TrainingData:
    """All that a pass may see of a data set. There is no test split here, so nothing can be selected on it."""

    classes: tuple[str, ...]
    preprocessing: Preprocessing
    train: Split
    calibration: Split
    validation: Split
    fingerprint: str
    augmentation: Augmentation
    task: Task = field(default_factory=Classification)


@dataclass(frozen=True)
class DataBundle:
    """The data set of a run: what passes see, and the test split that only evaluation sees."""

    training: TrainingData
    test: Split


# ---- the model -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """A series for the report, such as validation accuracy by epoch."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    x_label: str = "epoch"
    y_label: str = ""


@dataclass(frozen=True)
class PassRecord:
    """What one pass did, as it is shown in the report: counts and scores, and curves to draw.

    `details` stand in `report.json` alone, for a program to read: what would be too long to look at.
    """

    name: str
    facts: Mapping[str, Json] = field(default_factory=dict)
    curves: tuple[Curve, ...] = ()
    warnings: tuple[str, ...] = ()
    details: Mapping[str, Json] = field(default_factory=dict)


class ForeignModel(Protocol):
    """A model of another framework than PyTorch, which knows how to save itself and to answer.

    `loader` is "package.module:function"; that function reads from a folder what `save` wrote into it.
    """

    @property
    def loader(self) -> str: ...

    @property
    def parameter_count(self) -> int: ...

    def save(self, folder: Path) -> None:
        """Writes the model into an empty folder."""
        ...

    def outputs(self, batch: NDArray[np.float32]) -> Outputs:
        """What it answers for normalized float32 images (n, channels, height, width): an array for each output of the
        state, images first; a classifier's are its logits, float32 (n, classes).
        """
        ...


ONLY_LOGITS = ("logits",)
"""The outputs of a classifier."""

TORCH = "torch"
"""The framework of a state whose model is an `nn.Module` or an `ExportedProgram`."""


@dataclass(frozen=True)
class ModelState:
    """A model on its way through the passes. A pass returns a new one and leaves its input alone.

    `model` is an `nn.Module` or an `ExportedProgram`, as `form` says. It takes float32 (batch, channels, height,
    width), normalized by `preprocessing`. A program returns an array for each of `output_names`, images first: a
    classifier's are its logits (batch, len(classes)). A module may return them in a dictionary among others; see
    `edgeopt.networks.outputs`. `batch_range` bounds the batch of a program. `imports` names modules that must be
    imported before a saved model is read, because they define its classes or operators. Where `framework` is not
    "torch", `model` is a `ForeignModel`. `input_kind` says what a program takes: the above, or the pixels of
    `edgeopt.options.FileInput`. `untrained` names the layers that were drawn at random although weights were loaded: a
    head, where these are of other classes.
    """

    model: nn.Module | ExportedProgram | ForeignModel
    form: Form
    task: Task
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    precision: str = "float32"
    batch_range: tuple[int, int] = (1, 1024)
    imports: tuple[str, ...] = ()
    history: tuple[PassRecord, ...] = ()
    framework: str = TORCH
    input_kind: InputKind = InputKind.FLOAT_NCHW
    untrained: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ONLY_LOGITS

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one input without its batch: (channels, height, width)."""
        return (self.preprocessing.channels, *self.preprocessing.size)

    @property
    def foreign(self) -> ForeignModel:
        """The model of another framework."""
        if self.framework == TORCH:
            raise TypeError("this state holds a model of PyTorch")
        return cast("ForeignModel", self.model)

    @property
    def module(self) -> nn.Module:
        """The model of a state in module form."""
        if self.form is not Form.MODULE or self.framework != TORCH:
            raise TypeError("this state holds no module of PyTorch")
        return cast("nn.Module", self.model)

    @property
    def program(self) -> ExportedProgram:
        """The model of a state in program form."""
        if self.form is not Form.PROGRAM or self.framework != TORCH:
            raise TypeError("this state holds no program of PyTorch")
        return cast("ExportedProgram", self.model)

    def after(
        self,
        record: PassRecord,
        model: nn.Module | ExportedProgram | ForeignModel,
        *,
        form: Form | None = None,
        precision: str | None = None,
    ) -> ModelState:
        """The state that a pass returns: the new model and one more record."""
        return replace(
            self,
            model=model,
            form=form or self.form,
            precision=precision or self.precision,
            history=(*self.history, record),
        )


# ---- sensitivity ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Change:
    """What one level does to one layer of a captured program.

    `weight` takes the place of the layer's own, in its shape and dtype; None leaves that. `input` is applied to what
    enters the layer, float32 of any batch, and returns the same shape; it may not change what it is given, nor depend
    on other images.
    """

    weight: Tensor | None
    input: Callable[[Tensor], Tensor] | None = None


class ProbedLayer(Protocol):
    """A convolution or linear layer of a captured program, or several that share one weight.

    `name` is the module's path. `weight` has its output channels on `channel_axis`. `is_parameter` is False where the
    program computes the weight from its parameters; `weight` is the computed one then.
    """

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def weight(self) -> Tensor: ...

    @property
    def is_parameter(self) -> bool: ...

    @property
    def channel_axis(self) -> int: ...


class ProbedNetwork(Protocol):
    """A captured float program by its layers, as a probe sees it."""

    @property
    def layers(self) -> Mapping[str, ProbedLayer]:
        """The layers by name, in the order in which the program runs them."""
        ...

    def watch(self, batches: Iterable[Tensor], see: Callable[[str, Tensor], None]) -> int:
        """Runs batches and calls `see(name, input)` for each call of each layer; returns how many images there were."""
        ...


class Probe(Protocol):
    """A kind of compression made ready for one captured program, to be tried on one layer at a time."""

    @property
    def layers(self) -> Sequence[str]:
        """Names of the layers that it can change, in the order in which the program runs them."""
        ...

    def change(self, layer: str, level: float) -> Change:
        """What `level` does to `layer`; the same each time that it is asked."""
        ...


# ---- files ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExportResult:
    """What an exporter says of the file it wrote: its input, and its outputs, called and ordered as in the state.

    `precision` is the file's where the exporter converted it, empty where it is the program's. `delegated_share` is the
    share of nodes that the runtime's fast path takes, 0 to 1, None where it has no delegate; `outside` the others.
    `not_run` says why this machine cannot run the file, which is then neither verified nor measured. `stand_in` names
    the runtime that answers where the file's own is not here: its latency would say nothing. `companions` are files
    that it cannot be opened without, `beside` others that go along with it and are no part of its size, such as source
    code. `batch_dependent` says that an image's answer depends on its neighbours in a call.
    """

    input: TensorInfo
    outputs: tuple[TensorInfo, ...]
    delegated_share: float | None = None
    outside: tuple[str, ...] = ()
    facts: Mapping[str, Json] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    precision: str = ""
    not_run: str = ""
    stand_in: str = ""
    companions: tuple[str, ...] = ()
    batch_dependent: bool = False
    beside: tuple[str, ...] = ()
    footprint: Footprint | None = None
