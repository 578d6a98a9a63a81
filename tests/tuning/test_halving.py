"""Trials that others are ahead of are stopped at a rung, and nothing of a run is lost by a pause."""

from dataclasses import replace

import pytest

from edgeopt.errors import PausedError, RecipeError, ResourceError, StorageError
from edgeopt.pipeline import runner
from edgeopt.pipeline.pauses import Pause, pauses_of
from edgeopt.pipeline.request import RunRequest
from edgeopt.recipe.tune import Goal, Halving, TuneSettings
from edgeopt.tasks.classification import Classification
from edgeopt.tuning import attempt as attempts
from edgeopt.tuning.attempt import Attempts
from edgeopt.tuning.goals import Figures, Reference
from edgeopt.tuning.halving import Rivals, beaten
from edgeopt.tuning.plan import plan_study
from edgeopt.tuning.request import TuneRequest
from edgeopt.tuning.space import Choices, Parameter, Space
from edgeopt.tuning.trials import Ending, Trial
from edgeopt.tuning.winner import best
from edgeopt.tuning.written import plain
from tests.conftest import TINY_PLUGIN, TINY_RECIPE

(ACCURACY, *_) = Classification().score_kinds


def at(number, *rungs, cost=None, ending=Ending.DONE):
    return Trial(number=number, values={"n": number}, ending=ending, figures=Figures(), rungs=rungs, costs=(cost,))


def rivals(*trials):
    met = Rivals()
    for each in trials:
        met.meet(each)
    return met.all


def test_the_best_share_of_those_that_cost_no_more_goes_on():
    earlier = rivals(
        at(0, 0.9, cost=5), at(1, 0.6, cost=1), at(2, 0.7, cost=9), at(3, 0.99, cost=1, ending=Ending.REPEATED)
    )
    assert beaten(at(4, 0.1, cost=0.5), earlier, 0.5, ACCURACY) is None  # the smallest so far
    assert beaten(at(4, 0.65, cost=6), earlier, 0.5, ACCURACY).startswith("accuracy 65.0 %, and it takes 90.0 % to")
    assert beaten(at(4, 0.65, cost=6), earlier, 0.7, ACCURACY) is None  # two of three
    assert beaten(at(4, 0.65, cost=9), earlier, 0.5, ACCURACY) == (
        "accuracy 65.0 %, and it takes 70.0 % to go on: 2 of 3 trials that cost no more are at least as good"
    )
    assert beaten(at(4, 0.6, cost=1), earlier, 0.5, ACCURACY) is not None  # of equal ones, the earlier
    assert beaten(at(4, 0.2), [replace(each, costs=(None,)) for each in earlier], 0.5, ACCURACY) is not None
    assert beaten(at(4, 0.2, 0.3, cost=9), earlier, 0.5, ACCURACY) is None  # nobody stood at the second rung


def test_a_trial_is_held_against_the_last_thousand_that_stood_at_a_rung():
    met = rivals(*(at(number, number / 5000) for number in range(3000)), at(3000))
    assert len(met) == 1000 and (met[0].rungs, met[-1].rungs) == ((0.4,), (2999 / 5000,))


@pytest.fixture
def tried(monkeypatch, tmp_path, write_recipe):
    """Attempts whose runs are made up: the score after each share of the epochs is what the trial's value says."""
    runs = []
    space = Space((Parameter("passes.0.epochs", ("passes", 0, "epochs"), Choices((10, 20, 30))),))
    recipe = runner.check(write_recipe(TINY_RECIPE), plugin_files=[TINY_PLUGIN]).recipe

    def run(request):
        runs.append((request.recipe.name, request.pause.share if request.pause else None))
        if request.pause is not None:
            raise PausedError(round(30 * request.pause.share), request.recipe.passes[0].options["epochs"] / 100)
        return runner.RunResult(None, tmp_path)  # its figures are made up too

    monkeypatch.setattr(attempts.runner, "run", run)
    monkeypatch.setattr(attempts, "figures_of", lambda *_: Figures(scores={"accuracy": 0.9}))
    goal, kinds = Goal(), (ACCURACY,)
    made = Attempts(
        plain(recipe), space, goal, ("accuracy_drop",), Halving(rungs=(0.3, 0.6)), kinds, tmp_path, "study", ()
    )
    (tmp_path / "study").mkdir()
    return made, runs


REFERENCE = Reference({"accuracy": 0.95}, {}, {})


def test_a_trial_pauses_at_each_rung_and_stops_where_others_are_ahead(tried):
    made, runs = tried
    trials = []
    for number, epochs in enumerate((20, 10, 30)):
        trials.append(made.attempt(number, {"passes.0.epochs": epochs}, REFERENCE, rivals(*trials), lambda _: None))
    assert [each.ending for each in trials] == [Ending.DONE, Ending.BEATEN, Ending.DONE]
    assert [each.rungs for each in trials] == [(0.2, 0.2), (0.1,), (0.3, 0.3)]
    assert trials[1].reason.startswith("after 9 epochs: accuracy 10.0 %, and it takes 20.0 % to go on")
    assert [share for name, share in runs if name == "trial-1"] == [0.3]
    assert [share for name, share in runs if name == "trial-2"] == [0.3, 0.6, None]
    assert not trials[1].reaches_goal and trials[1].excess > 0
    assert best(trials) is trials[0]


def test_a_study_that_was_killed_behind_a_rung_compares_as_it_did(tried, monkeypatch):
    made, runs = tried
    monkeypatch.setattr(attempts, "figures_of", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        made.attempt(0, {"passes.0.epochs": 20}, REFERENCE, [], lambda _: None)
    monkeypatch.setattr(attempts, "figures_of", lambda *_: Figures(scores={"accuracy": 0.9}))
    runs.clear()
    again = made.attempt(0, {"passes.0.epochs": 20}, REFERENCE, [], lambda _: None)
    assert again.rungs == (0.2, 0.2) and runs == [("trial-0", None)]
    assert made.attempt(1, {"passes.0.epochs": 30}, REFERENCE, [], lambda _: None).rungs == (0.3, 0.3)


def test_the_epochs_of_passes_that_differ_count(write_recipe):
    two = TINY_RECIPE.replace('use = "round-weights"\nsteps = 64', 'use = "fit-stripes"\nepochs = 7')
    plan = runner.check(write_recipe(two), plugin_files=[TINY_PLUGIN])
    first, second = (stage.name for stage in plan.stages.values() if stage.kind.value == "pass")
    assert pauses_of(plan, Pause(0.2)) == {first: 2}
    assert pauses_of(plan, Pause(0.5)) == {second: 2}
    assert pauses_of(plan, Pause(0.5, first=1)) == {second: 4}
    assert pauses_of(plan, Pause(0.5, first=2)) == {} == pauses_of(plan, None)


@pytest.mark.usefixtures("imports_done_once")
def test_a_run_that_paused_goes_on(tmp_path, write_recipe):
    recipe = write_recipe(TINY_RECIPE.replace('use = "fit-stripes"', 'use = "fit-stripes"\nepochs = 6'))
    request = RunRequest(recipe, out=tmp_path / "runs", plugin_files=(TINY_PLUGIN,), pause=Pause(0.5))
    with pytest.raises(PausedError) as paused:
        runner.run(request)
    assert paused.value.epochs == 3
    assert not (tmp_path / "runs" / "tiny" / "report.json").exists()
    report = runner.run(replace(request, pause=None)).report
    assert report.passes[0].facts["resumed_at"] == 3


def test_what_halving_cannot_be_has_its_line(write_recipe):
    recipe = write_recipe(
        TINY_RECIPE
        + '[trainer]\ndevices = 2\n[tune]\n[tune.halving]\nkeep = 0.3\n[tune.space]\n"passes.0.epochs" = [1, 2]\n'
    )
    with pytest.raises(RecipeError, match="several devices cannot pause") as error:
        plan_study(TuneRequest(recipe, plugin_files=(TINY_PLUGIN,)))
    assert error.value.problems[0].location.line == TINY_RECIPE.count("\n") + 4
    with pytest.raises(ValueError, match=r"rungs rise, and 0.5, 0.25 do not"):
        Halving(rungs=(0.5, 0.25))


def test_a_study_without_halving_has_the_key_that_it_had():
    assert "halving" not in TuneSettings().model_dump()
    assert TuneSettings(halving=Halving()).model_dump()["halving"]["keep"] == 0.5


def ending_runs(monkeypatch, *errors):
    """Runs that raise one error after the other, and then make what they are to."""
    waiting = list(errors)

    def run(_request):
        if waiting:
            raise waiting.pop(0)
        return runner.RunResult(None, None)

    monkeypatch.setattr(attempts.runner, "run", run)


def test_a_trial_whose_process_was_killed_is_tried_once_more(tried, monkeypatch):
    made = replace(tried[0], halving=None)
    ending_runs(monkeypatch, ResourceError("ended by SIGKILL"))
    assert made.attempt(0, {"passes.0.epochs": 20}, REFERENCE, [], lambda _: None).ending is Ending.DONE
    ending_runs(monkeypatch, ResourceError("ended by SIGKILL"), ResourceError("ended by SIGKILL"))
    assert made.attempt(0, {"passes.0.epochs": 20}, REFERENCE, [], lambda _: None).ending is Ending.FAILED


def test_a_full_disk_ends_a_study_and_is_no_trial_s_fault(tried, monkeypatch):
    ending_runs(monkeypatch, StorageError("the disk is full"))
    with pytest.raises(StorageError):
        tried[0].attempt(0, {"passes.0.epochs": 20}, REFERENCE, [], lambda _: None)
