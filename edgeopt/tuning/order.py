"""In which order trials are proposed, made and kept, and what each may know of the others.

With `at_once` trials, trial n knows the ends of exactly the trials 0 … n - `at_once`, whoever makes them and however
fast they are: so one worker, several processes and a cluster make the same study.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from edgeopt.arrays import Json
from edgeopt.tuning.halving import Rival, Rivals
from edgeopt.tuning.proposals import Proposer
from edgeopt.tuning.space import Values
from edgeopt.tuning.trials import Ending, Trial

_REPEATS = 20  # proposals of known recipes in a row, after which nothing new is expected


@dataclass(frozen=True)
class Proposal:
    """A trial that is to be made, or one whose recipe is that of trial `same` and need not be.

    `earlier` are the trials that it may be held against, and `proposer` is what the sampler wants to know of it again.
    """

    number: int
    values: Values
    earlier: tuple[Rival, ...]
    proposer: Mapping[str, Json]
    same: int | None = None


class Crew(Protocol):
    """Whoever makes trials, one or several at a time."""

    @property
    def has_room(self) -> bool:
        """Whether another trial can be begun."""
        ...

    def start(self, proposal: Proposal) -> None:
        """Begins a trial."""
        ...

    def ended(self) -> Trial:
        """Waits until one of the trials that were begun has ended, whichever is first."""
        ...


class Ended(Protocol):
    """The trials of a study that have ended, in their order."""

    @property
    def all(self) -> Sequence[Trial]: ...


class Order:
    """The proposals of a study that begins, or goes on behind the trials `ended`."""

    def __init__(self, proposer: Proposer, at_once: int, ended: Sequence[Trial]) -> None:
        self._proposer = proposer
        self._at_once = at_once
        self._next = len(ended)
        self._told = 0
        self._rivals = Rivals()
        self._first: dict[str, int] = {}
        self._known_in_a_row = 0
        for trial in ended:
            self._meet(trial.number, trial.values)
        self._tell(ended, self._next - at_once)
        for trial in ended[self._told :]:
            proposer.expect(trial)

    @property
    def next(self) -> int:
        """The number of the trial that is proposed next."""
        return self._next

    @property
    def recipes(self) -> int:
        """How many different recipes were proposed."""
        return len(self._first)

    def may_propose(self, ended: Sequence[Trial]) -> bool:
        """Whether all trials have `ended` that the next one is to know of."""
        return self._next < len(ended) + self._at_once

    def propose(self, ended: Sequence[Trial]) -> Proposal | None:
        """The next trial; None where one proposal after the other was known already."""
        number = self._next
        self._tell(ended, number - self._at_once)
        values = self._proposer.propose(number)
        same = self._meet(number, values)
        if self._known_in_a_row > _REPEATS:
            return None
        self._next += 1
        return Proposal(number, values, self._rivals.all, self._proposer.remembered(number), same)

    def finish(self, ended: Sequence[Trial]) -> None:
        """Tells the proposer of all that it has not been told yet."""
        self._tell(ended, len(ended) - 1)

    def _tell(self, ended: Sequence[Trial], last: int) -> None:
        count = max(self._told, last + 1)
        for trial in ended[self._told : count]:
            self._proposer.tell(trial)
            self._rivals.meet(trial)
        self._told = count

    def _meet(self, number: int, values: Values) -> int | None:
        """The first trial with these values, if that is an earlier one."""
        first = self._first.setdefault(json.dumps(values, sort_keys=True), number)
        self._known_in_a_row = self._known_in_a_row + 1 if first != number else 0
        return first if first != number else None


@dataclass
class Course:
    """The trials of a study on their way: `keep` is called with each in the order of their numbers, and `stop` says
    before each proposal why there are to be no more.
    """

    order: Order
    crew: Crew
    trials: Ended
    keep: Callable[[Trial], None]
    stop: Callable[[Order], str | None]
    _on_the_way: dict[int, Proposal] = field(default_factory=dict)
    _waiting: dict[int, Trial] = field(default_factory=dict)  # they ended before an earlier one

    def run(self) -> str:
        """Makes trials until there are to be no more; returns why."""
        why: str | None = None
        while True:
            while why is None and self.crew.has_room and self.order.may_propose(self.trials.all):
                why = self.stop(self.order) or self._propose()
            if self._keep_next():
                continue
            if not self._on_the_way:
                self.order.finish(self.trials.all)
                assert why is not None  # a trial could be proposed otherwise: all before it have ended
                return why
            ended = self.crew.ended()
            self._waiting[ended.number] = ended

    def _propose(self) -> str | None:
        proposal = self.order.propose(self.trials.all)
        if proposal is None:
            return f"the last {_REPEATS} proposals were known already"
        self._on_the_way[proposal.number] = proposal
        if proposal.same is None:
            self.crew.start(proposal)
        return None

    def _keep_next(self) -> bool:
        """Keeps the next trial in order, if it has ended."""
        number = len(self.trials.all)
        proposal = self._on_the_way.get(number)
        if proposal is None:
            return False
        trial = self._waiting.pop(number, None)
        if proposal.same is not None:
            trial = repeated(self.trials.all[proposal.same], number)
        if trial is None:
            return False
        del self._on_the_way[number]
        self.keep(replace(trial, proposer=proposal.proposer))
        return True


def repeated(trial: Trial, number: int) -> Trial:
    """Trial `number`, whose recipe is that of an earlier `trial`."""
    known = trial.ending in (Ending.FAILED, Ending.BEATEN)
    return replace(trial, number=number, ending=trial.ending if known else Ending.REPEATED, seconds=0.0)


@dataclass
class OneByOne:
    """A crew of one, in this process: `make` makes a trial."""

    make: Callable[[Proposal], Trial]
    _next: Proposal | None = None

    @property
    def has_room(self) -> bool:
        return self._next is None

    def start(self, proposal: Proposal) -> None:
        self._next = proposal

    def ended(self) -> Trial:
        assert self._next is not None  # whoever asks has begun one
        proposal, self._next = self._next, None
        return self.make(proposal)
