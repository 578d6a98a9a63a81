"""Trials on nodes that share no disk with this machine.

What a trial is made of goes there by value, and what it leaves comes back by value: its outcome and the files of its
folder. Results of stages go through the bucket, so that what trials have in common is made once.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from edgeopt.errors import UserError, WorkerDiedError, WorkerError
from edgeopt.files import storage_errors, write_aside
from edgeopt.fingerprint import digest
from edgeopt.json_values import from_values
from edgeopt.pipeline.cluster import Luggage, node_folder
from edgeopt.pipeline.runner import store_of
from edgeopt.tuning.halving import RungFiles
from edgeopt.tuning.worker import TrialJob, TrialRequest
from edgeopt.workers.places import Errand, workers_of
from edgeopt.workers.pool import Listener
from edgeopt.workers.process import error_event
from edgeopt.workers.worker import Event, user_error

_ID = 12  # characters, by which a node tells studies of one name apart


class Sender(Protocol):
    """What takes a function to a node."""

    def send(self, label: str, log: Path, function: Callable[..., Any], *arguments: Any) -> Any:
        """What it gives there."""
        ...

    def end(self) -> None:
        """Ends all that is on its way."""
        ...


@dataclass(frozen=True)
class Parcel:
    """All that a node is handed for a trial: what is asked for, as text, and on how many processors."""

    request: str
    luggage: Luggage
    cores: int
    label: str
    log: str

    def unpacked(self) -> TrialRequest:
        """The request as it is on this node, in a folder that no other study has."""
        self.luggage.unpack()
        asked = json.loads(self.request)
        request = from_values(TrialRequest, asked)
        below = f"{request.attempts.below}-{digest(asked['attempts'])[:_ID]}"
        return replace(request, attempts=replace(request.attempts, out=node_folder().resolve(), below=below))


@dataclass(frozen=True)
class Answer:
    """What a node gives back: a zip archive of the trial's folder, and the trial as text; or what was found wrong, or
    what a bug said.
    """

    files: bytes
    trial: str = ""
    wrong: Event | None = None
    bug: str = ""


@dataclass(frozen=True)
class Apart:
    """A cluster whose nodes share no disk with this machine, as a place for trials."""

    cluster: Sender
    luggage: Luggage

    @property
    def told(self) -> str:
        return "on the cluster"

    def do(self, errand: Errand, listener: Listener) -> None:  # noqa: ARG002 - only its end comes from afar
        job = errand.job
        assert isinstance(job, TrialJob)
        parcel = Parcel(job.request.read_text("utf-8"), self.luggage, job.cores, errand.label, errand.log.name)
        answer: Answer = self.cluster.send(errand.label, errand.log, make_trial, parcel)
        folder = errand.log.parent
        with storage_errors(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            with zipfile.ZipFile(io.BytesIO(answer.files)) as archive:
                archive.extractall(folder)
        if answer.wrong is not None:
            raise user_error(answer.wrong)
        if answer.bug:
            raise WorkerError(answer.bug, str(errand.log))
        write_aside(job.outcome, answer.trial)

    def end(self) -> None:
        self.cluster.end()


def make_trial(parcel: Parcel, folder: str) -> Answer:
    """Makes a trial on this node, in a process of its own; `folder` is the one from which paths count.

    Its folder goes when it is packed. A process that died leaves it, and whoever tries again goes on from there.
    """
    os.chdir(folder)
    request = parcel.unpacked()
    attempts, number = request.attempts, request.proposal.number
    own = attempts.folder / attempts.name_of(number)
    asked, outcome = (attempts.folder / f"{number}.{name}.json" for name in ("request", "outcome"))
    write_aside(asked, request.to_text())
    outcome.unlink(missing_ok=True)
    jobs = store_of(attempts.out).root / "jobs"
    errand = Errand(TrialJob(asked, outcome, parcel.cores), parcel.label, jobs, own / parcel.log)
    try:
        with workers_of(errand, lambda worker, event: None) as workers:  # noqa: ARG005 - nobody listens here
            workers.finish(workers.start(errand.job, errand.label))
        answer = Answer(_packed(own), outcome.read_text("utf-8"))
    except UserError as error:
        answer = Answer(_packed(own), wrong=error_event(error))
    except WorkerDiedError:
        raise
    except WorkerError as error:
        answer = Answer(_packed(own), bug=str(error))
    RungFiles(attempts.folder).forget(number)
    for each in (own, own.with_name(f"{own.name}-smoke")):
        shutil.rmtree(each, ignore_errors=True)
    for file in (asked, outcome):
        file.unlink(missing_ok=True)
    return answer


def _packed(folder: Path) -> bytes:
    """A zip archive of the files below a folder, unpacked by its paths."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                packed.write(file, file.relative_to(folder).as_posix())
    return archive.getvalue()
