"""A process that exports a program, once more and otherwise: `python -m edgeopt.bench.sweep.file JOB.json`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from edgeopt.arrays import Json
from edgeopt.errors import ExportError
from edgeopt.json_values import from_text, to_text
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.handed import handed
from edgeopt.plugins.use import Use
from edgeopt.types import Role
from edgeopt.workers.process import Events, die_with_parent, leave, work

CARD = "card.json"


@dataclass(frozen=True)
class WantedFile:
    """A file that is to be made: by what, of the program in a folder, and what its card says of its making."""

    exporter: Use[ExporterPlugin]
    role: Role
    recipe: Mapping[str, Json]
    program: Path
    seed: int


@dataclass(frozen=True)
class WrittenFile:
    """What was written."""

    name: str
    size_bytes: int
    sha256: str
    precision: str


@dataclass(frozen=True)
class FileJob:
    """What a worker is to do: to make the `WantedFile` that `wanted`, a file, holds in `folder`, and to write a
    `WrittenFile` to `answer`.
    """

    module: ClassVar[str] = "edgeopt.bench.sweep.file"

    wanted: Path
    folder: Path
    answer: Path


def main(events: Events) -> None:
    """Does the job that the command line names."""
    job = from_text(FileJob, Path(sys.argv[1]).read_text())
    die_with_parent()
    from edgeopt.export.make import make_artifact  # torch, from here on
    from edgeopt.networks.saved import load_state

    wanted = handed(WantedFile, job.wanted)
    made = make_artifact(
        wanted.exporter,
        load_state(wanted.program),
        job.folder,
        role=wanted.role,
        recipe=wanted.recipe,
        calibration=_NoImages(),
        progress=events,
        seed=wanted.seed,
    )
    if made.exported.not_run:
        raise ExportError(made.exported.not_run)
    (job.folder / CARD).write_text(made.card.to_json(), encoding="utf-8")
    job.answer.write_text(to_text(WrittenFile(made.path.name, made.size_bytes, made.sha256, made.precision)))


class _NoImages:
    """The calibration split of an exporter that is not to calibrate: its scales would not be those of the run."""

    labels: Any = ()

    def __len__(self) -> int:
        return 1

    def pixels(self, indices: object) -> Any:  # noqa: ARG002 - as a split has it
        raise ExportError(
            "its exporter looks at images while it writes, so that its scales would not be those of the run",
            hint="let a pass such as ptq choose the scales",
        )


if __name__ == "__main__":
    leave(work(main))
