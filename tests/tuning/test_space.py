"""What `[tune.space]` says becomes places in a recipe and values, or problems with their lines."""

import pytest

from edgeopt.errors import RecipeError
from edgeopt.tuning.plan import plan_study
from edgeopt.tuning.request import TuneRequest
from edgeopt.tuning.space import Choices, Range, changed
from tests.conftest import TINY_PLUGIN, TINY_RECIPE


def planned(tmp_path, tune):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(TINY_RECIPE + tune)
    return plan_study(TuneRequest(recipe, out=tmp_path / "runs", plugin_files=(TINY_PLUGIN,)))


def problems(tmp_path, tune):
    with pytest.raises(RecipeError) as error:
        planned(tmp_path, tune)
    return {
        problem.location.line - TINY_RECIPE.count("\n") if problem.location else None: problem
        for problem in error.value.problems
    }


def test_bounds_come_from_the_option_where_they_are_left_out(tmp_path):
    study = planned(
        tmp_path, '[tune.space]\n"passes.round-weights.steps" = { log = true }\n"passes.1.on" = ["weights"]\n'
    )
    steps, on = study.space.parameters
    assert (steps.key, steps.scale) == (("passes", 1, "steps"), Range(1.0, 4096.0, is_log=True, is_whole=True))
    assert on.scale == Choices(("weights",))
    assert study.space.count == 4096
    assert study.standing == {"passes.round-weights.steps": 64, "passes.1.on": "weights"}


def test_choices_come_from_the_option_too(tmp_path):
    study = planned(tmp_path, "[tune.space]\npasses.fit-stripes.epochs = [1, 2]\nmodel.weights = ['none']\n")
    assert [each.name for each in study.space.parameters] == ["passes.fit-stripes.epochs", "model.weights"]


def test_a_pass_that_may_be_left_out_takes_its_options_with_it(tmp_path):
    space = '[tune.space]\n"passes.round-weights" = { optional = true }\n"passes.round-weights.steps" = [8, 64]\n'
    study = planned(tmp_path, space)
    presence, steps = study.space.parameters
    assert presence.is_presence and steps.needs == presence.name
    assert study.space.count == 3
    without = changed(study.recipe.to_json(), study.space, {presence.name: False})
    assert [each["use"] for each in without["passes"]] == ["fit-stripes"]
    coarse = changed(study.recipe.to_json(), study.space, {presence.name: True, steps.name: 8})
    assert coarse["passes"][1]["steps"] == 8


def test_every_mistake_has_its_line(tmp_path):
    found = problems(
        tmp_path,
        "[tune]\n"
        'minimize = "byte"\n'
        "goal = { acuracy_drop = 0.1, latency_ms = 3 }\n"
        "[tune.space]\n"
        '"passes.fit-stripe.epochs" = [1]\n'
        '"model.wieghts" = ["none"]\n'
        '"passes.0.seconds" = {}\n'
        '"dataset.image_size" = 3\n'
        '"modle.arch" = ["a"]\n'
        '"passes.1.steps" = { low = 9, high = 3 }\n'
        '"passes.7.steps" = [1]\n'
        '"passes.0.epochs" = []\n',
    )
    told = {line: f"{problem.message} {problem.hint}" for line, problem in found.items()}
    assert "bytes" in told[2] and "accuracy_drop" in told[3]
    assert "fit-stripes" in told[5] and "weights" in told[6]
    assert "needs high" in told[7] and "give a list" in told[8] and "model" in told[9]
    assert "low comes before high" in told[10] and "0 to 1" in told[11] and "no values" in told[12]


def test_an_end_that_a_plugin_refuses_is_told_before_anything_runs(tmp_path):
    found = problems(tmp_path, '[tune.space]\n"passes.fit-stripes.epochs" = [1, 0]\n"model.weights" = ["none", 3]\n')
    assert "cannot be 0" in found[2].message and "greater than or equal to 1" in found[2].hint
    assert "cannot be 3" in found[3].message


def test_a_recipe_without_the_table_says_how_to_write_it(tmp_path):
    with pytest.raises(RecipeError, match=r"no \[tune\] table") as error:
        planned(tmp_path, "")
    assert "[tune.space]" in error.value.problems[0].hint
