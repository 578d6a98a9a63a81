"""What a study tries depends on `at_once` and its seed, and not on who makes trials or which of them ends first."""

import random
from dataclasses import dataclass, field
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.recipe.tune import Sampler, TuneSettings
from edgeopt.tuning import proposals
from edgeopt.tuning.goals import Figures, Missed
from edgeopt.tuning.order import Course, OneByOne, Order
from edgeopt.tuning.proposals import Proposer
from edgeopt.tuning.space import Choices, Parameter, Range, Space
from edgeopt.tuning.trials import Ending, Trial

SPACE = Space(
    (
        Parameter("model.arch", ("model", "arch"), Choices(("small", "large"))),
        Parameter("passes.0.epochs", ("passes", 0, "epochs"), Range(1, 12, is_whole=True)),
    )
)
STANDING = {"model.arch": "large", "passes.0.epochs": 6}


def made(proposal):
    """A made-up trial, which depends on what it may be held against."""
    small, epochs = proposal.values["model.arch"] == "small", proposal.values["passes.0.epochs"]
    ahead = sum(each.costs[0] for each in proposal.earlier)
    ending = Ending.FAILED if epochs == 7 else Ending.REFUSED if epochs == 11 else Ending.DONE
    missed = (Missed("accuracy", 0.9, 0.8, 0.1),) if small else ()
    objectives = (float(epochs), float(len(proposal.earlier) + ahead % 7))
    return Trial(
        number=proposal.number,
        values=proposal.values,
        ending=ending,
        figures=Figures(),
        objectives=objectives,
        missed=missed,
        rungs=(float(proposal.number),),
        costs=(float(epochs),),
    )


class KilledError(Exception):
    pass


@dataclass
class RandomCrew:
    """As many workers as one likes, whose trials end in any order; it is killed before it ends trial `ends`."""

    workers: int
    order: random.Random
    ends: int | None = None
    at_work: list = field(default_factory=list)
    most: int = 0

    @property
    def has_room(self):
        return len(self.at_work) < self.workers

    def start(self, proposal):
        self.at_work.append(proposal)
        self.most = max(self.most, len(self.at_work))

    def ended(self):
        if self.ends == 0:
            raise KilledError
        self.ends = None if self.ends is None else self.ends - 1
        return made(self.at_work.pop(self.order.randrange(len(self.at_work))))


@dataclass
class Kept:
    trials: list

    @property
    def all(self):
        return tuple(self.trials)


def study(crew, at_once, sampler=Sampler.TPE, trials=(), count=18):
    kept = Kept(list(trials))
    proposer = Proposer(SPACE, 2, sampler, 17, STANDING)
    order = Order(proposer, at_once, kept.all)
    course = Course(order, crew, kept, kept.trials.append, lambda order: "enough" if order.next >= count else None)
    try:
        course.run()
    except KilledError:
        return kept.all
    return kept.all


@cache
def alone(at_once, sampler=Sampler.TPE, count=18):
    return study(OneByOne(made), at_once, sampler, count=count)


@settings(max_examples=12)
@given(
    st.integers(1, 6),
    st.integers(1, 8),
    st.sampled_from(list(Sampler)),
    st.integers(0, 10_000),
    st.integers(0, 18),
)
def test_who_works_and_who_is_first_changes_nothing(at_once, workers, sampler, seed, kill):
    wanted = alone(at_once, sampler)
    crew = RandomCrew(workers, random.Random(seed), kill)
    before = study(crew, at_once, sampler)
    assert before == wanted[: len(before)]
    assert crew.most <= at_once
    assert study(RandomCrew(workers, random.Random(seed + 1)), at_once, sampler, before) == wanted


def test_a_sampler_that_looks_at_a_part_proposes_alike_after_a_kill(monkeypatch):
    monkeypatch.setattr(proposals, "_LOOKED_AT", 16)
    wanted = study(OneByOne(made), 5, Sampler.TPE, count=60)
    for kill in (9, 17, 31, 52):
        before = study(RandomCrew(5, random.Random(kill), kill), 5, Sampler.TPE, count=60)
        assert study(RandomCrew(3, random.Random(1)), 5, Sampler.TPE, before, count=60) == wanted


def test_generations_are_bred_alike_after_a_kill():
    wanted = alone(5, Sampler.NSGA2, count=70)
    for kill in (24, 43, 66):
        before = study(RandomCrew(5, random.Random(kill), kill), 5, Sampler.NSGA2, count=70)
        again = study(RandomCrew(3, random.Random(1)), 5, Sampler.NSGA2, before, count=70)
        assert [each.values for each in again] == [each.values for each in wanted]


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_trial_knows_exactly_those_that_it_may(at_once):
    seen = []

    def make(proposal):
        seen.append((proposal.number, [int(each.rungs[0]) for each in proposal.earlier]))
        return made(proposal)

    trials = study(OneByOne(make), at_once)
    for number, earlier in seen:
        known = trials[: max(0, number - at_once + 1)]
        assert earlier == [int(each.rungs[0]) for each in known if each.ending is not Ending.REPEATED]


def test_one_after_the_other_is_what_it_was():
    """The loop that there was before several could be at once."""
    proposer, trials = Proposer(SPACE, 2, Sampler.TPE, 17, STANDING), []
    while len(trials) < 18:
        values = proposer.propose(len(trials))
        found = next((each for each in alone(1)[: len(trials)] if each.values == values), None)
        trial = alone(1)[len(trials)]
        assert trial.values == values and (found is None or trial.figures == found.figures)
        trials.append(trial)
        proposer.tell(trial)


def test_a_study_with_one_at_once_has_the_key_that_it_had():
    assert "at_once" not in TuneSettings().model_dump()
    assert TuneSettings(at_once=4).model_dump()["at_once"] == 4
