"""A study proposes what one that was never interrupted would have, and learns what reaches the goal."""

import math
import time

import pytest

from edgeopt.recipe.tune import Sampler
from edgeopt.tuning.goals import Figures, Missed
from edgeopt.tuning.proposals import Proposer
from edgeopt.tuning.space import Choices, Parameter, Range, Space
from edgeopt.tuning.trials import Ending, Trial

SPACE = Space(
    (
        Parameter("passes.prune", ("passes", 1), Choices((True, False)), is_presence=True),
        Parameter("model.arch", ("model", "arch"), Choices(("small", ["a", "list"], 3))),
        Parameter("passes.prune.keep", ("passes", 1, "keep"), Range(0.2, 1.0), needs="passes.prune"),
        Parameter("passes.0.epochs", ("passes", 0, "epochs"), Range(1, 100, is_log=True, is_whole=True)),
    )
)


def ended(number, values, proposer):
    """A made-up trial: small keeps are small files and score worse, and `small` misses the goal."""
    keep = values.get("passes.prune.keep", 1.0)
    missed = (Missed("accuracy", 0.9, 0.8, 0.1),) if values["model.arch"] == "small" else ()
    size = 1000 * keep + 10 * math.log(values["passes.0.epochs"])
    figures = Figures(bytes=round(size), scores={"accuracy": keep})
    ending = Ending.FAILED if values["passes.0.epochs"] == 7 else Ending.DONE
    return Trial(
        number=number,
        values=values,
        ending=ending,
        figures=figures,
        objectives=(size, 1 - keep),
        missed=missed,
        proposer=proposer.remembered(number),
    )


def study(sampler, trials, count):
    proposer = Proposer(SPACE, 2, sampler, 17, None)
    for trial in trials:
        proposer.tell(trial)
    found = list(trials)
    while len(found) < count:
        trial = ended(len(found), proposer.propose(len(found)), proposer)
        found.append(trial)
        proposer.tell(trial)
    return found


@pytest.mark.parametrize("sampler", list(Sampler))
def test_an_interrupted_study_goes_on_as_if_it_had_not_been(sampler):
    whole = study(sampler, [], 45)
    assert [trial.values for trial in study(sampler, whole[:23], 45)] == [trial.values for trial in whole]


def test_values_are_of_the_space_and_a_pass_that_is_left_out_has_none():
    for trial in study(Sampler.TPE, [], 30):
        assert trial.values["model.arch"] in ("small", ["a", "list"], 3)
        assert isinstance(trial.values["passes.0.epochs"], int)
        assert 1 <= trial.values["passes.0.epochs"] <= 100
        assert ("passes.prune.keep" in trial.values) == trial.values["passes.prune"]


def test_trials_that_reach_the_goal_become_more():
    trials = study(Sampler.TPE, [], 60)
    assert sum(trial.reaches_goal for trial in trials[40:]) > sum(trial.reaches_goal for trial in trials[:10])
    assert sum(trial.reaches_goal for trial in trials[40:]) > 15


def test_the_recipe_as_it_stands_comes_first():
    standing = {"passes.prune": True, "model.arch": ["a", "list"], "passes.prune.keep": 0.5, "passes.0.epochs": 5}
    proposer = Proposer(SPACE, 1, Sampler.TPE, 17, standing)
    assert proposer.propose(0) == standing


def test_a_proposal_is_quick_after_hundreds_of_trials():
    trials = study(Sampler.RANDOM, [], 300)
    proposer = Proposer(SPACE, 2, Sampler.TPE, 17, None)
    for trial in trials:
        proposer.tell(trial)
    assert sum(share for _, share in proposer.importances()) == pytest.approx(1)
    start = time.process_time()
    proposer.propose(300)
    assert (
        time.process_time() - start < 2
    )  # of a second or so, and never minutes: samplers look at all trials each time
