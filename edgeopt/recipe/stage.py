"""The steps that a plan is made of, and the files that it is to make."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from edgeopt.fingerprint import digest
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.use import Use
from edgeopt.toml_lines import Key
from edgeopt.types import Role


class StageKind(StrEnum):
    """What a stage does; also the first part of its name."""

    DATA = "data"
    MODEL = "model"
    PASS = "pass"
    PROGRAM = "program"
    EXPORT = "export"
    VERIFY = "verify"
    MEASURE = "measure"
    DEVICE = "device"
    REPORT = "report"


class JudgedOn(StrEnum):
    """The split on which programs and files answer. A trial of a study is judged on validation images, by which it may
    be chosen; test images are for what was chosen.
    """

    TEST = "test"
    VALIDATION = "validation"


@dataclass(frozen=True)
class Stage:
    """One step of a run, cached under `key`. `needs` are the stages whose results it reads; `recipe_key` is where it is
    written.
    """

    kind: StageKind
    name: str
    label: str
    key: str
    needs: tuple[str, ...]
    recipe_key: Key
    index: int = 0
    role: Role | None = None

    def key_without(self, failures: Collection[str], away: Collection[str] = ()) -> str:
        """The key of a result that was made without the files named in `failures`; a report also without the device
        stages named in `away`.
        """
        files = failures if self.kind in (StageKind.MEASURE, StageKind.DEVICE, StageKind.REPORT) else ()
        devices = away if self.kind is StageKind.REPORT else ()
        return digest([self.key, sorted(files), sorted(devices)]) if files or devices else self.key


@dataclass(frozen=True)
class PlannedExport:
    """One file to make: an exporter, the file's role, the role of the model that goes into it, and the folder it ends
    in.

    `step` counts the recipe's exports, `number` the plan's files.
    """

    use: Use[ExporterPlugin]
    step: int
    number: int
    role: Role
    folder: str
    program_role: Role

    @property
    def name(self) -> str:
        """The file's name in messages and stages."""
        return f"{self.folder}-{self.role}"

    @property
    def file(self) -> str:
        """Path of the file below the run's folder."""
        return f"{self.folder}/{self.role}/model{self.use.plugin.suffix}"

    @property
    def program_stage(self) -> str:
        """The stage that makes the program behind the file."""
        return f"{StageKind.PROGRAM}-{self.program_role}"

    @property
    def export_stage(self) -> str:
        """The stage that makes the file."""
        return f"{StageKind.EXPORT}-{self.name}"

    @property
    def verify_stage(self) -> str:
        """The stage that opens the file and compares it."""
        return f"{StageKind.VERIFY}-{self.name}"
