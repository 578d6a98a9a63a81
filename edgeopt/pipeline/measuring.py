"""Latency and memory of a run's files as its stage: kept under the key of all of them, or of those that were timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.arrays import Json
from edgeopt.errors import EdgeoptError
from edgeopt.json_values import to_values
from edgeopt.pipeline.job import HandedPlan
from edgeopt.pipeline.timed_file import time_run
from edgeopt.pipeline.timing import Timed
from edgeopt.recipe.stage import PlannedExport, Stage
from edgeopt.workers.pool import Workers

if TYPE_CHECKING:  # rich is loaded when something is shown
    from edgeopt.workers.display import Display


class _FilesFailedError(Exception):
    """Some files could not be timed, so that the result is not that of all."""


@dataclass(frozen=True)
class Measuring:
    """How the files of a run are measured: by `workers`, while `alone` keeps other runs of this machine from working.

    `key` is that of the stage, without the files that failed.
    """

    handed: HandedPlan
    stage: Stage
    key: Callable[[Mapping[str, EdgeoptError]], str]
    workers: Workers
    alone: Callable[[], AbstractContextManager[None]]

    def measure(self, planned: Sequence[PlannedExport], display: Display) -> Mapping[str, EdgeoptError]:
        """Keeps what was measured, or found; returns why some files could not be timed."""
        store, label = self.handed.store, self.stage.label
        timed: list[Timed] = []

        def measure(_folder: Path) -> dict[str, Json]:
            with self.alone():
                timed.append(time_run(self.handed, self.stage, planned, self.workers, display))
            if timed[0].failures:
                raise _FilesFailedError
            return to_values(timed[0].measured)  # type: ignore[no-any-return]

        try:
            store.compute(self.key({}), measure, label)
        except _FilesFailedError:
            store.compute(self.key(timed[0].failures), lambda _folder: to_values(timed[0].measured), label)
            return timed[0].failures
        return {}
