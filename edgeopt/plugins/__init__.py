"""The face for authors of plugins: everything that a declaration and its callables need has its name here.

What is listed in `__all__`, and the rooms that `docs/plugins.md` names, is public; nothing else of `edgeopt` is.
Importing it is light: no framework comes with it.
"""

from typing import TYPE_CHECKING

from edgeopt.arrays import InputKind, Json
from edgeopt.cores import usable_cores
from edgeopt.errors import (
    CheckpointError,
    ConnectionLostError,
    DataError,
    DeviceError,
    ExportError,
    FunctionChangedError,
    Location,
    NothingChangedError,
    PluginError,
    Problem,
    RecipeError,
    TrainingError,
    UserError,
    did_you_mean,
    first_line,
    printable,
)
from edgeopt.fingerprint import digest, files_fingerprint, installed_version, versions_of
from edgeopt.options import (
    Augmentation,
    ChannelDeviations,
    ChannelMeans,
    DatasetOptions,
    ExporterOptions,
    FileInput,
    Options,
    PosixPath,
    Share,
    TrainerSettings,
    to_json,
)
from edgeopt.plugins.browser_runtime import BrowserRuntime
from edgeopt.plugins.contexts import FULL_BUDGET, SMOKE_BUDGET, Budget, ExportContext, PassContext
from edgeopt.plugins.declarations import (
    Bits,
    DatasetPlugin,
    ExporterPlugin,
    ModelPlugin,
    Numerics,
    PassPlugin,
    Plugin,
    ProbePlugin,
    QuantizerPlugin,
    ReaderPlugin,
    Scheme,
)
from edgeopt.plugins.device import (
    Device,
    DeviceFacts,
    DeviceFile,
    DeviceJob,
    DevicePlugin,
    FileOnDevice,
    OnDevice,
    WholeWay,
)
from edgeopt.plugins.energy_use import EnergyUse
from edgeopt.plugins.hookspecs import hookimpl
from edgeopt.plugins.levels import Levels
from edgeopt.plugins.operator_times import OperatorTime, OperatorTimesRequest
from edgeopt.plugins.predictor import Predictor, RemotePredictor, close_predictor
from edgeopt.plugins.tap import Seen, SeenTensor, TappedFile, TapRequest
from edgeopt.plugins.use import AsTable, Use
from edgeopt.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from edgeopt.progress import Bar, Progress, Silent
from edgeopt.tasks import TASKS, Classification, Guess, Paired, Prediction, Score, Task, guess_in, wilson_interval
from edgeopt.toml_lines import key_lines, toml_mistake
from edgeopt.tracking.tracked import Part as TrackedPart
from edgeopt.tracking.tracked import TrackedRun
from edgeopt.types import (
    TORCH,
    Card,
    Change,
    Curve,
    DataBundle,
    DataSurvey,
    ExportResult,
    ForeignModel,
    Form,
    FoundData,
    Images,
    ModelState,
    PassRecord,
    Probe,
    ProbedLayer,
    ProbedNetwork,
    RawDataset,
    Role,
    Split,
    TensorInfo,
    TrainingData,
)

if TYPE_CHECKING:  # names of NumPy arrays, for annotations: NumPy takes a tenth of a second to import
    from edgeopt.arrays import Labels as Labels
    from edgeopt.arrays import Logits as Logits
    from edgeopt.arrays import Pixels as Pixels

__all__ = [
    "FULL_BUDGET",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "SMOKE_BUDGET",
    "TASKS",
    "TORCH",
    "AsTable",
    "Augmentation",
    "Bar",
    "Bits",
    "BrowserRuntime",
    "Budget",
    "Card",
    "Change",
    "ChannelDeviations",
    "ChannelMeans",
    "CheckpointError",
    "Classification",
    "ConnectionLostError",
    "Curve",
    "DataBundle",
    "DataError",
    "DataSurvey",
    "DatasetOptions",
    "DatasetPlugin",
    "Device",
    "DeviceError",
    "DeviceFacts",
    "DeviceFile",
    "DeviceJob",
    "DevicePlugin",
    "EnergyUse",
    "ExportContext",
    "ExportError",
    "ExportResult",
    "ExporterOptions",
    "ExporterPlugin",
    "FileInput",
    "FileOnDevice",
    "ForeignModel",
    "Form",
    "FoundData",
    "FunctionChangedError",
    "Guess",
    "Images",
    "InputKind",
    "Json",
    "Levels",
    "Location",
    "ModelPlugin",
    "ModelState",
    "NothingChangedError",
    "Numerics",
    "OnDevice",
    "OperatorTime",
    "OperatorTimesRequest",
    "Options",
    "Paired",
    "PassContext",
    "PassPlugin",
    "PassRecord",
    "Plugin",
    "PluginError",
    "PosixPath",
    "Prediction",
    "Predictor",
    "Preprocessing",
    "Probe",
    "ProbePlugin",
    "ProbedLayer",
    "ProbedNetwork",
    "Problem",
    "Progress",
    "QuantizerPlugin",
    "RawDataset",
    "ReaderPlugin",
    "RecipeError",
    "RemotePredictor",
    "Role",
    "Scheme",
    "Score",
    "Seen",
    "SeenTensor",
    "Share",
    "Silent",
    "Split",
    "TapRequest",
    "TappedFile",
    "Task",
    "TensorInfo",
    "TrackedPart",
    "TrackedRun",
    "TrainerSettings",
    "TrainingData",
    "TrainingError",
    "Use",
    "UserError",
    "WholeWay",
    "close_predictor",
    "did_you_mean",
    "digest",
    "files_fingerprint",
    "first_line",
    "guess_in",
    "hookimpl",
    "installed_version",
    "key_lines",
    "printable",
    "to_json",
    "toml_mistake",
    "usable_cores",
    "versions_of",
    "wilson_interval",
]
