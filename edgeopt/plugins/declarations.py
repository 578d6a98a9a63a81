"""What a plugin declares: one frozen dataclass a hook.

A declaration module is light: it imports this module, defines option models, and names callables that import torch and
the rest when they are called. From a declaration alone come `edgeopt plugins show`, the reference page, the JSON schema
of recipes and the errors. Declarations grow by optional fields with defaults only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgeopt.errors import PluginError, Problem
from edgeopt.options import DatasetOptions
from edgeopt.plugins.accelerator import Accelerator
from edgeopt.plugins.base import Plugin as Plugin  # noqa: PLC0414 - all declarations have their names here
from edgeopt.plugins.blame import blamed
from edgeopt.plugins.browser_runtime import BrowserRuntime
from edgeopt.plugins.contexts import ExportContext, PassContext
from edgeopt.plugins.device import DevicePlugin as DevicePlugin  # noqa: PLC0414 - as above
from edgeopt.plugins.device import OnDevice
from edgeopt.plugins.levels import Levels
from edgeopt.plugins.operator_times import OperatorTime, OperatorTimesRequest
from edgeopt.plugins.predictor import Predictor, close_predictor
from edgeopt.plugins.tap import TappedFile, TapRequest
from edgeopt.plugins.task import TaskPlugin as TaskPlugin  # noqa: PLC0414 - as above
from edgeopt.tasks.stored import DEFAULT as DEFAULT_TASK
from edgeopt.types import (
    TORCH,
    DataSurvey,
    ExportResult,
    Form,
    FoundData,
    ModelState,
    Probe,
    RawDataset,
    TrainingData,
)

if TYPE_CHECKING:
    from torch import Tensor
    from torchao.quantization.pt2e.quantizer import Quantizer

    from edgeopt.types import ProbedNetwork


def _not_declared(_options: Any) -> Any:
    raise PluginError("this data set declares `find` alone")  # replaced by it when the declaration is made


def _found_answer(find: Callable[[Any], FoundData], name: str, options: Any) -> Any:
    """What a fresh look answers; a function of the module, so that loaders can pickle it."""
    return getattr(find(options), name)()


@dataclass(frozen=True)
class DatasetPlugin(Plugin):
    """A data set: labelled images, as they come.

    `load(options)` returns a `RawDataset`; the core chooses classes, draws splits and applies the preprocessing.
    `fingerprint(options)` is a cheap text that changes when the images do (names, sizes and times of files; a
    version), so that a cached run notices without reading them. Where it is cheap, `survey(options)` tells the classes
    and counts without reading an image, for `edgeopt check`.

    A data set whose files must be looked for declares `find(options)` instead of these three: it looks once, and what
    it returns answers all three. A run then hands that on to the process that reads the images.

    `tasks` names the tasks that its targets serve, the likeliest first; where options decide, `tasks_of(options)` gives
    those of them.
    """

    kind: ClassVar[str] = "dataset"
    plural: ClassVar[str] = "data sets"
    hook: ClassVar[str] = "edgeopt_datasets"
    header: ClassVar[str] = "[dataset]"

    load: Callable[[Any], RawDataset] = field(default=_not_declared, kw_only=True)
    fingerprint: Callable[[Any], str] = field(default=_not_declared, kw_only=True)
    survey: Callable[[Any], DataSurvey | None] | None = field(default=None, kw_only=True)
    find: Callable[[Any], FoundData] | None = field(default=None, kw_only=True)
    tasks: tuple[str, ...] = field(default=(DEFAULT_TASK,), kw_only=True)
    tasks_of: Callable[[Any], tuple[str, ...]] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not issubclass(self.options, DatasetOptions):
            raise PluginError(f"dataset {self.name!r}: its options do not extend DatasetOptions")
        declared = [self.load is not _not_declared, self.fingerprint is not _not_declared, self.survey is not None]
        if self.find is None and not all(declared[:2]):
            raise PluginError(f"dataset {self.name!r}: declare load and fingerprint, or find")
        if self.find is not None:
            if any(declared):
                raise PluginError(f"dataset {self.name!r}: find answers for load, fingerprint and survey: declare one")
            for name in ("load", "fingerprint", "survey"):
                object.__setattr__(self, name, partial(_found_answer, self.find, name))


@dataclass(frozen=True)
class ModelPlugin(Plugin):
    """A source of models. `build(options, data)` returns a float `ModelState` in module form for the classes of `data`.

    `framework` is the one that its models belong to; a recipe's passes and exporters must be of the same. Where the
    options name local files, `fingerprint(options)` is a cheap text that changes when these do, and raises a
    `UserError` when one is missing. `tasks` names what its models can be for, `data.task` says which it is.

    `refuses(options, dataset_options)` gives what speaks against the images of a data set, such as a network of square
    ones alone, before one is read; it is light, and each problem names the data set's option as its own.
    """

    kind: ClassVar[str] = "model"
    plural: ClassVar[str] = "models"
    hook: ClassVar[str] = "edgeopt_models"
    header: ClassVar[str] = "[model]"

    build: Callable[[Any, TrainingData], ModelState] = field(kw_only=True)
    fingerprint: Callable[[Any], str] | None = field(default=None, kw_only=True)
    framework: str = field(default=TORCH, kw_only=True)
    tasks: tuple[str, ...] = field(default=(DEFAULT_TASK,), kw_only=True)
    refuses: Callable[[Any, DatasetOptions], Iterable[Problem]] | None = field(default=None, kw_only=True)


class Scheme(StrEnum):
    """A family of numerics, by which exporters say what they take.

    Activations of `INT8_AFFINE` have zero points; in `INT8_SYMMETRIC` nothing has one; in `INT8_SYMMETRIC_INPUTS`
    besides only what enters a layer is quantized, and outputs stay in float. `OTHER` are numerics of one's own.
    """

    INT8_AFFINE = "int8-affine"
    INT8_SYMMETRIC = "int8-symmetric"
    INT8_SYMMETRIC_INPUTS = "int8-symmetric-inputs"
    OTHER = "other"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class QuantizerPlugin(Plugin):
    """A target's numerics. `build(options, qat)` returns a torchao PT2E `Quantizer`; `precision` names the result
    ("int8").

    `scheme` names the family of numerics, as a `Scheme` or its text. An exporter that takes some families alone refuses
    all others, and a quantizer that leaves its scheme out is of none of them.
    """

    kind: ClassVar[str] = "quantizer"
    plural: ClassVar[str] = "quantizers"
    hook: ClassVar[str] = "edgeopt_quantizers"
    header: ClassVar[str] = "[passes.quantizer]"

    build: Callable[[Any, bool], Quantizer] = field(kw_only=True)
    precision: str = field(default="int8", kw_only=True)
    scheme: Scheme | str = field(default=Scheme.UNKNOWN, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        known = [scheme.value for scheme in Scheme]
        if (self.scheme or Scheme.UNKNOWN) not in known:
            raise PluginError(
                f"quantizer {self.name!r}: there is no scheme {self.scheme!r}",
                hint=f"it is one of {', '.join(known)}",
            )
        object.__setattr__(self, "scheme", Scheme(self.scheme or Scheme.UNKNOWN))


@dataclass(frozen=True)
class Bits:
    """How many bits a pass gives the weights of a layer, and what enters it."""

    weights: int = 8
    activations: int = 8


@dataclass(frozen=True)
class PassPlugin(Plugin):
    """A step that turns one model state into another.

    `accepts` and `produces` say in which form; `optimizes` is False for passes such as `train` that make the float
    model with which the optimized one is compared. `makes` names what it gives the weights and later passes may take
    away again, such as "zeros"; `keeps` names what this one does not take away. A recipe in which a later pass does is
    refused. `trains` is False for a pass that does no training: its data has no augmentation, and of `[trainer]` it is
    given the accelerator, the threads and the loader's processes alone, so that no other change makes it work again.
    `bits(options)` says what the options ask for where the pass can give others than eight, so that exporters
    can refuse them before anything runs.

    Where the options name local files, `fingerprint(options)` is a text that changes when what the pass reads in them
    does, and raises a `UserError` when one is missing or cannot be read. Such files are small, so it goes by their
    contents. A pass that looks at answers in a way of its own, and not through the task alone, names in `tasks` those
    that it knows. `leaves_out` names options of `[dataset.augmentation]` without which it trains whatever they ask for;
    a recipe in which every pass that trains leaves one out is refused.
    """

    kind: ClassVar[str] = "pass"
    plural: ClassVar[str] = "passes"
    hook: ClassVar[str] = "edgeopt_passes"
    header: ClassVar[str] = "[[passes]]"

    apply: Callable[[ModelState, Any, PassContext], ModelState] = field(kw_only=True)
    accepts: Form = field(default=Form.MODULE, kw_only=True)
    produces: Form = field(default=Form.MODULE, kw_only=True)
    optimizes: bool = field(default=True, kw_only=True)
    trains: bool = field(default=True, kw_only=True)
    makes: tuple[str, ...] = field(default=(), kw_only=True)
    keeps: tuple[str, ...] = field(default=(), kw_only=True)
    fingerprint: Callable[[Any], str] | None = field(default=None, kw_only=True)
    framework: str = field(default=TORCH, kw_only=True)
    bits: Callable[[Any], Bits] | None = field(default=None, kw_only=True)
    tasks: tuple[str, ...] | None = field(default=None, kw_only=True)
    leaves_out: tuple[str, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Numerics:
    """What is known of an exporter's program before anything runs: the quantizers of the passes, in order, and the
    bits.

    `bits` are those of the layers that no option names, 8 and 8 where no pass asks for others.
    """

    quantizers: tuple[QuantizerPlugin, ...] = ()
    framework: str = TORCH
    bits: Bits = field(default_factory=lambda: Bits())


@dataclass(frozen=True)
class ExporterPlugin(Plugin):
    """A runtime: `export(state, options, context)` writes `context.path`, `open(path, threads)` opens it for
    prediction.

    The state is always in program form. `runtime` names the runtime in the report, `suffix` ends the file's name.
    `runtime_modules` are the modules that opening a file imports; they are imported before its memory is measured.
    `framework` is the one whose models it takes, `format` what it writes, as `edgeopt convert --to` names it.
    `is_folder` says that the file is a zip of a folder, which `edgeopt convert` unpacks.

    `baseline(options)` returns the options of the float file that the optimized one is compared with. Where they differ
    from the options given, the exporter itself optimizes, so that a recipe without an optimizing pass has two files to
    compare. `check(options, numerics)` gives what can be known to be wrong before anything runs. Where the options name
    local files, `fingerprint(options)` is as that of a pass. Where a page can open the files by itself, `browser()`
    gives what it needs for that; it raises an `ExportError` where that cannot be had. `on_device` says how a file is
    opened on a device, where edgeopt is not; without it, this machine alone runs the files.

    `tap(request)` opens a file so that it shows its inner values, for `edgeopt why`; see `TapRequest` and `TappedFile`.
    Without it nobody can say which layer of such a file errs. `operator_times(request)` tells what each operator takes,
    where the runtime does, for `edgeopt bench --operators`; see `OperatorTimesRequest`. `for_batch(options, images)`
    gives the options of a file that takes so many images in a call; without it, files take what their options say.
    `tails` names the format whose last operators it takes from a task as `ExportContext.tail`, "onnx", "tflite"
    or "tensorrt". `accelerators` are processors that run some operators of its files, for `edgeopt check --target`; see
    `Accelerator`.

    `refuses(state, options)` gives what speaks against a network before anything trains it, such as operators that the
    runtime has not; the state is the program of the model as it was built. `tells_footprint` says that its results have
    a `footprint`, which gates on RAM and flash need. `companions(path)` are the files beside one that it cannot be
    opened without, as `ExportResult.companions` names them: they count as its bytes and go along to devices.

    `no_int16` says why its runtime computes nothing in integers where activations are int16, as the end of a sentence
    that begins with the exporter's name; recipes that ask for them are refused with it. It is empty where the runtime
    does.
    """

    kind: ClassVar[str] = "exporter"
    plural: ClassVar[str] = "exporters"
    hook: ClassVar[str] = "edgeopt_exporters"
    header: ClassVar[str] = "[[exports]]"

    export: Callable[[ModelState, Any, ExportContext], ExportResult] = field(kw_only=True)
    open: Callable[[Path, int], Predictor] = field(kw_only=True)
    runtime: str = field(kw_only=True)
    suffix: str = field(kw_only=True)
    runtime_modules: tuple[str, ...] = field(default=(), kw_only=True)
    framework: str = field(default=TORCH, kw_only=True)
    format: str = field(default="", kw_only=True)
    is_folder: bool = field(default=False, kw_only=True)
    baseline: Callable[[Any], Any] | None = field(default=None, kw_only=True)
    check: Callable[[Any, Numerics], Iterable[Problem]] | None = field(default=None, kw_only=True)
    fingerprint: Callable[[Any], str] | None = field(default=None, kw_only=True)
    browser: Callable[[], BrowserRuntime] | None = field(default=None, kw_only=True)
    tap: Callable[[TapRequest], TappedFile] | None = field(default=None, kw_only=True)
    on_device: OnDevice | None = field(default=None, kw_only=True)
    operator_times: Callable[[OperatorTimesRequest], Sequence[OperatorTime]] | None = field(default=None, kw_only=True)
    for_batch: Callable[[Any, int], Any] | None = field(default=None, kw_only=True)
    tails: str = field(default="", kw_only=True)
    refuses: Callable[[ModelState, Any], Iterable[Problem]] | None = field(default=None, kw_only=True)
    tells_footprint: bool = field(default=False, kw_only=True)
    accelerators: tuple[Accelerator, ...] = field(default=(), kw_only=True)
    companions: Callable[[Path], tuple[Path, ...]] | None = field(default=None, kw_only=True)
    no_int16: str = field(default="is not known to take them", kw_only=True)

    @property
    def written_format(self) -> str:
        """What it writes, as `edgeopt convert --to` names it."""
        return self.format or self.name

    def parts(self, path: Path) -> tuple[Path, ...]:
        """A file and those that it cannot be opened without."""
        return (path, *(self.companions(path) if self.companions else ()))

    @contextmanager
    def opened(self, path: Path, threads: int) -> Iterator[Predictor]:
        """What `open` gives, within, closed at the end."""
        with blamed(self, "open"):
            predictor = self.open(path, threads)
        try:
            yield predictor
        finally:
            close_predictor(predictor)

    def float_options(self, options: Any) -> Any:
        """The options of the float file that one with `options` is compared with."""
        return self.baseline(options) if self.baseline else options


@dataclass(frozen=True)
class ReaderPlugin(Plugin):
    """Opens a model file for `edgeopt convert`: `read(path, options)` returns its `ModelState`, in program form.

    `suffixes` are the endings of the files that it reads, "/" that of a folder. Classes that a file does not name are
    "0", "1", …

    `scale_option` names the option, if there is one, that takes "pixels" (0..255), "unit" (0..1) or "symmetric"
    (-1..1) for the images that the network expects. Where a model only guesses at labelled images, `edgeopt convert`
    tries these, or other values of the options `mean` and `std`, and says what helps.
    """

    kind: ClassVar[str] = "reader"
    plural: ClassVar[str] = "readers"
    hook: ClassVar[str] = "edgeopt_readers"
    header: ClassVar[str] = "[source]"
    in_recipes: ClassVar[bool] = False

    read: Callable[[Path, Any], ModelState] = field(kw_only=True)
    suffixes: tuple[str, ...] = field(kw_only=True)
    framework: str = field(default=TORCH, kw_only=True)
    scale_option: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class ProbePlugin(Plugin):
    """A kind of compression whose effect on each layer `edgeopt sensitivity RECIPE --of NAME` measures.

    `prepare(network, calibration, options)` makes it ready for a captured float program, whose layers and weights
    `network` knows. `calibration` calls for batches of calibration images, float32 (n, channels, height, width), as
    often as they are needed. `levels` is its scale.
    """

    kind: ClassVar[str] = "probe"
    plural: ClassVar[str] = "probes"
    hook: ClassVar[str] = "edgeopt_probes"
    header: ClassVar[str] = "[probe]"
    in_recipes: ClassVar[bool] = False

    prepare: Callable[[ProbedNetwork, Callable[[], Iterable[Tensor]], Any], Probe] = field(kw_only=True)
    levels: Levels = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.levels.default
        if not given or self.levels.sorted(given) != given or any(map(self.levels.problem, given)):
            raise PluginError(f"probe {self.name!r}: its default levels are not on its scale, the mildest first")


PLUGIN_TYPES: tuple[type[Plugin], ...] = (
    DatasetPlugin,
    ModelPlugin,
    QuantizerPlugin,
    PassPlugin,
    ExporterPlugin,
    ReaderPlugin,
    ProbePlugin,
    DevicePlugin,
    TaskPlugin,
)


def kind_of(plugin: Plugin) -> type[Plugin]:
    """The kind of a declaration, which may be of a class that extends that of its kind."""
    return next(kind for kind in PLUGIN_TYPES if isinstance(plugin, kind))
