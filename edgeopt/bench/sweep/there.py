"""The files that are there at a place of a sweep: a run's own, those made in their stead, those missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeopt.bench.request import BenchRequest
from edgeopt.bench.rows import said
from edgeopt.bench.sweep.make import Swept, SweptFile
from edgeopt.bench.sweep.wanted import Place, are_there, wanted_at
from edgeopt.report.finished_files import FinishedFile


@dataclass(frozen=True)
class MissingFile:
    """A file that could not be made for a place of the sweep."""

    file: FinishedFile
    reason: str


def files_there(
    files: Sequence[FinishedFile], swept: Swept, request: BenchRequest, place: Place
) -> list[SweptFile | MissingFile]:
    """The files as they are at a place; `swept` is what came of those that had to be made."""
    found: list[SweptFile | MissingFile] = []
    for file in are_there(files, place):
        wanted = wanted_at(file, place, max(request.batches))
        there = SweptFile(file) if wanted is None else swept[wanted.key]
        found.append(there if isinstance(there, SweptFile) else MissingFile(file, said(there)))
    return found
