"""What each kind of stage leaves in the store besides its files: a frozen dataclass each, and the
one way to read them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from edgeopt.data.facts import PreparedData
from edgeopt.json_values import from_values
from edgeopt.measure.answers import Verification
from edgeopt.measure.latency import Latency
from edgeopt.measure.on_device import FileThere
from edgeopt.networks.cost import ProgramCost
from edgeopt.plugins.device import DeviceFacts
from edgeopt.plugins.energy_use import EnergyUse
from edgeopt.recipe.plan import Plan
from edgeopt.recipe.stage import PlannedExport
from edgeopt.tasks.scores import Score
from edgeopt.types import ExportResult, PassRecord
from edgeopt.workers.store import Result

R = TypeVar("R")


@dataclass(frozen=True)
class BuiltModel:
    """The model as its plugin built it; `untrained` names layers that its weights did not fill."""

    parameters: int
    untrained: tuple[str, ...] = ()


@dataclass(frozen=True)
class AppliedPass:
    """What a pass says of itself."""

    record: PassRecord


@dataclass(frozen=True)
class CapturedProgram:
    """A program, its score on the test split, and what it costs, None for another framework than PyTorch."""

    precision: str
    test_accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    images: int
    cost: ProgramCost | None = None
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True)
class ExportedFile:
    """A file: its bytes, its precision, and what the exporter says of it. `sha256` is that of all
    its files together, `parts` that of each where it has several.
    """

    sha256: str
    size_bytes: int
    compressed_bytes: int
    precision: str
    exported: ExportResult
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class VerifiedFile:
    """A file's answers; None where no runtime for it is on this machine. `self_test` holds those for the images of its
    card's self-test, as many of each as the card names.
    """

    verification: Verification | None
    self_test: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class MeasuredFile:
    """Latency and memory of a file, and the energy of an image where that was asked for, or why it is not known."""

    latency_ms: Latency
    peak_memory_bytes: int
    energy: EnergyUse | None = None
    energy_problem: str | None = None


@dataclass(frozen=True)
class Measured:
    """What was measured, by the name of the export."""

    files: Mapping[str, MeasuredFile]


@dataclass(frozen=True)
class MeasuredThere:
    """A device as it was when its work was done, and what each file did there."""

    facts: DeviceFacts
    files: tuple[FileThere, ...]


@dataclass(frozen=True)
class WrittenReport:
    """The report stands in the result's files alone."""


StageResult = (
    BuiltModel
    | AppliedPass
    | CapturedProgram
    | ExportedFile
    | VerifiedFile
    | Measured
    | MeasuredThere
    | WrittenReport
    | PreparedData
)


@dataclass(frozen=True)
class Results:
    """The finished results of a plan's stages. `find` gives the store's result of a stage by name, or raises."""

    plan: Plan
    find: Callable[[str], Result]

    def data(self) -> PreparedData:
        """What the data stage found."""
        return self._read(PreparedData, "data")

    def model(self) -> BuiltModel:
        """The model before the passes."""
        return self._read(BuiltModel, "model")

    def program(self, name: str) -> CapturedProgram:
        """The score of the program stage `name`."""
        return self._read(CapturedProgram, name)

    def export(self, planned: PlannedExport) -> ExportedFile:
        """What is known of an exported file."""
        return self._read(ExportedFile, planned.export_stage)

    def verification(self, planned: PlannedExport) -> Verification | None:
        """A file's answers, None where it does not run here."""
        return self._read(VerifiedFile, planned.verify_stage).verification

    def self_test(self, planned: PlannedExport) -> tuple[tuple[float, ...], ...]:
        """A file's answers for the images of its card's self-test."""
        return self._read(VerifiedFile, planned.verify_stage).self_test

    def measured(self, planned: PlannedExport) -> MeasuredFile:
        """A file's latency and memory, and its energy."""
        return self._read(Measured, "measure").files[planned.name]

    def there(self, stage: str) -> MeasuredThere:
        """What the files did on the device of a stage."""
        return self._read(MeasuredThere, stage)

    def file(self, planned: PlannedExport) -> Path:
        """The file that an export stage wrote."""
        return self.folder(planned.export_stage) / f"model{planned.use.plugin.suffix}"

    def folder(self, name: str) -> Path:
        """The folder with the files of a stage."""
        return self.find(name).folder

    def _read(self, kind: type[R], name: str) -> R:
        return from_values(kind, self.find(name).values)
