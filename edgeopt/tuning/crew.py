"""Trials side by side, each in a process of its own, on this machine or wherever there are places."""

from __future__ import annotations

import contextlib
import queue
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol

from edgeopt.errors import UserError, WorkerError, in_a_line
from edgeopt.files import storage_errors, write_aside
from edgeopt.pipeline.runner import store_of
from edgeopt.tuning.attempt import Attempts
from edgeopt.tuning.goals import Figures, Reference
from edgeopt.tuning.order import Proposal
from edgeopt.tuning.space import Values
from edgeopt.tuning.trials import Ending, Trial
from edgeopt.tuning.worker import DOING, TrialJob, TrialRequest, read_trial
from edgeopt.workers.places import Errand, Places
from edgeopt.workers.worker import Event

LOG = "trial.log"
"""What the process of a trial, and not its run, printed: in the trial's folder."""


@dataclass(frozen=True)
class Making:
    """Where the trials of a study, whose folder is `study`, are asked for and answered, until they are kept."""

    study: Path

    @property
    def folder(self) -> Path:
        """The folder of all of it."""
        return self.study / "making"

    def request(self, number: int) -> Path:
        """The file with what was asked for."""
        return self.folder / f"{number}.request.json"

    def outcome(self, number: int) -> Path:
        """The file with the trial."""
        return self.folder / f"{number}.outcome.json"

    def ask(self, number: int, text: str) -> Trial | None:
        """Writes a request; gives the trial where an earlier session asked for the same and has its answer."""
        request, outcome = self.request(number), self.outcome(number)
        with contextlib.suppress(OSError, ValueError, UserError):
            if request.read_text(encoding="utf-8") == text:
                return read_trial(outcome)
        with storage_errors(outcome):
            outcome.unlink(missing_ok=True)
        write_aside(request, text)
        return None

    def forget(self, number: int | None = None) -> None:
        """Removes what was asked and answered of trial `number`, or of all."""
        if number is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        for file in (self.request(number), self.outcome(number)):
            file.unlink(missing_ok=True)


class Shown(Protocol):
    """Whoever shows what trials do; several threads tell it."""

    def trial(self, number: int, values: Values) -> None:
        """A trial begins."""
        ...

    def doing(self, number: int, what: str) -> None:
        """What it does now."""
        ...


class SideBySide:
    """A crew of `workers`: each trial is followed by a thread, which waits for what is made in `places`, on `cores`
    processors for each trial.
    """

    def __init__(
        self, attempts: Attempts, reference: Reference, workers: int, cores: int, places: Places, shown: Shown
    ) -> None:
        self._attempts, self._reference = attempts, reference
        self._workers, self._cores, self._places, self._shown = workers, cores, places, shown
        self._making = Making(attempts.folder)
        self._ended: queue.Queue[Trial | BaseException] = queue.Queue()
        self._threads = ThreadPoolExecutor(workers)
        self._on_the_way = 0

    def __enter__(self) -> SideBySide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._places.end()
        self._threads.shutdown()

    @property
    def has_room(self) -> bool:
        return self._on_the_way < self._workers

    def start(self, proposal: Proposal) -> None:
        self._shown.trial(proposal.number, proposal.values)
        request = TrialRequest(self._attempts, replace(proposal, proposer={}), self._reference)
        self._on_the_way += 1
        self._threads.submit(self._follow, request)

    def ended(self) -> Trial:
        ended = self._ended.get()
        self._on_the_way -= 1
        if isinstance(ended, BaseException):
            raise ended
        return ended

    def _follow(self, request: TrialRequest) -> None:
        number = request.proposal.number
        try:
            known = self._making.ask(number, request.to_text())
            self._shown.doing(number, self._places.told)
            trial = known or self._made(number)
            self._shown.doing(number, "waits for an earlier one")
            self._ended.put(trial)
        except (UserError, WorkerError) as error:
            self._ended.put(_failed(request, in_a_line(error)))
        except BaseException as error:  # for whoever waits for a trial
            self._ended.put(error)

    def _made(self, number: int) -> Trial:
        attempts, outcome = self._attempts, self._making.outcome(number)

        def listen(worker: str, event: Event) -> None:  # noqa: ARG001 - as listeners are
            if event["event"] == DOING:
                self._shown.doing(number, str(event["text"]))

        errand = Errand(
            job=TrialJob(self._making.request(number), outcome, self._cores),
            label=f"trial {number}",
            jobs=store_of(attempts.out).root / "jobs",
            log=attempts.folder / attempts.name_of(number) / LOG,
        )
        self._places.do(errand, listen)
        return read_trial(outcome)


def _failed(request: TrialRequest, reason: str) -> Trial:
    proposal = request.proposal
    return Trial(
        number=proposal.number,
        values=proposal.values,
        ending=Ending.FAILED,
        figures=Figures(),
        reason=reason,
        folder=request.attempts.name_of(proposal.number),
    )
