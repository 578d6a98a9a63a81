"""A trial in a process of its own, beside others: `python -m edgeopt.tuning.worker JOB.json`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from edgeopt.cores import own_cores
from edgeopt.files import write_aside
from edgeopt.json_values import from_text, from_values, to_values
from edgeopt.pipeline.request import Beside
from edgeopt.pipeline.runner import store_of
from edgeopt.tuning.attempt import Attempts
from edgeopt.tuning.goals import Reference
from edgeopt.tuning.order import Proposal
from edgeopt.tuning.trials import Trial
from edgeopt.workers.own_cores import some_cores
from edgeopt.workers.process import Events, die_with_parent, leave, work

DOING = "doing"
"""The event that says what a trial does now, in its `text`."""


@dataclass(frozen=True)
class TrialRequest:
    """All that decides a trial."""

    attempts: Attempts
    proposal: Proposal
    reference: Reference

    def to_text(self) -> str:
        """The request as JSON text; scores that are no numbers stay so."""
        return json.dumps(to_values(self))


@dataclass(frozen=True)
class TrialJob:
    """What a worker is to do: to make the trial that `request`, a file, asks for, on `cores` processors of its own, and
    to write it to `outcome`.
    """

    module: ClassVar[str] = "edgeopt.tuning.worker"

    request: Path
    outcome: Path
    cores: int


def read_trial(file: Path) -> Trial:
    """The trial that a worker wrote."""
    return from_values(Trial, json.loads(file.read_text(encoding="utf-8")))


def main(events: Events) -> None:
    """Makes the trial that the command line's job names."""
    job = from_text(TrialJob, Path(sys.argv[1]).read_text())
    die_with_parent()
    request = from_values(TrialRequest, json.loads(job.request.read_text(encoding="utf-8")))
    proposal = request.proposal
    attempts = replace(request.attempts, beside=Beside(own_cores()))
    with some_cores(store_of(attempts.out).turns, job.cores):
        trial = attempts.attempt(
            proposal.number,
            proposal.values,
            request.reference,
            proposal.earlier,
            lambda text: events.send({"event": DOING, "text": text}),
        )
    write_aside(job.outcome, json.dumps(to_values(trial)))


if __name__ == "__main__":
    leave(work(main))
