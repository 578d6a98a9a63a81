"""What a study would cost, and which of its recipes cannot run, before anything is run."""

import pytest
from typer.testing import CliRunner

import edgeopt
from edgeopt.cli import app
from edgeopt.pipeline.runner import store_of
from edgeopt.tuning.outlook import outlook_of
from edgeopt.tuning.plan import plan_study
from edgeopt.tuning.request import TuneRequest
from tests.conftest import TINY_PLUGIN, TINY_RECIPE

SHARES = "[dataset.shares]\nvalidation = 0.2\ntest = 0.2\n\n[model]"
TUNE = """
[tune]
minimize = "bytes"
trials = 5

[tune.space]
"passes.fit-stripes.epochs" = [2, 4]
"passes.round-weights" = { optional = true }
"passes.round-weights.steps" = [1, 64, 128]
"""


@pytest.fixture
def planned(tmp_path):
    def made(space: str = "", recipe: str = TINY_RECIPE.replace("[model]", SHARES) + TUNE):
        (tmp_path / "recipe.toml").write_text(recipe + space)
        return plan_study(TuneRequest(tmp_path / "recipe.toml", out=tmp_path / "runs", plugin_files=(TINY_PLUGIN,)))

    return made


def test_trainings_that_recipes_share_count_once(planned, tmp_path):
    seen = outlook_of(planned(), store_of(tmp_path / "runs"))
    assert (seen.recipes, seen.is_whole, seen.refused) == (8, True, 0)  # two times rounded in three ways, or not
    assert (seen.least, seen.most) == (2, 4)
    assert (seen.trainings, seen.together, seen.alone) == (2, 6, 24)
    assert seen.kept == 0


def test_trainings_of_the_store_are_told(planned, tmp_path):
    study = planned()
    edgeopt.run(
        tmp_path / "recipe.toml", out=tmp_path / "runs", plugin_files=[TINY_PLUGIN], overrides=["passes.0.epochs=2"]
    )
    assert outlook_of(study, store_of(tmp_path / "runs")).kept == 1


def test_recipes_that_fail_by_two_values_together_are_told(planned, tmp_path):
    study = planned('"dataset.shares.validation" = [0.2, 0.6]\n"dataset.shares.test" = [0.2, 0.6]\n')
    seen = outlook_of(study, store_of(tmp_path / "runs"))
    assert (seen.recipes, seen.refused) == (32, 8)
    (refusal,) = seen.refusals
    assert {refusal.values[f"dataset.shares.{each}"] for each in ("validation", "test")} == {0.6}
    assert "shares" in refusal.reason


def test_of_a_space_without_end_some_are_drawn_and_always_the_same(planned, tmp_path):
    study = planned('"passes.fit-stripes.seconds" = { low = 0.0, high = 1.0 }\n')
    seen = outlook_of(study, store_of(tmp_path / "runs"), most=10)
    assert (seen.recipes, seen.is_whole) == (10, False)
    assert seen == outlook_of(study, store_of(tmp_path / "runs"), most=10)


def test_a_check_shows_it_and_leaves_nothing(planned, tmp_path):
    planned('"dataset.shares.validation" = [0.2, 0.6]\n"dataset.shares.test" = [0.2, 0.6]\n')
    command = ["tune", str(tmp_path / "recipe.toml"), "--plugin", str(TINY_PLUGIN), "--out", str(tmp_path / "runs")]
    done = CliRunner().invoke(app, [*command, "--check"], prog_name="edgeopt")
    assert done.exit_code == 0
    assert "cost      2 to 4 epochs a trial, 20 at most for 5 trials" in done.stdout
    assert "refused   8 of the 32 recipes" in done.stdout
    assert "validation 0.6, test 0.6: " in done.stdout
    assert not (tmp_path / "runs").exists()
