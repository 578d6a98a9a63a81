"""A study that looks for the least energy, by a meter that each file's calls turn."""

import csv
import json
import tomllib
from pathlib import Path

import pytest

from edgeopt.errors import RecipeError
from edgeopt.measure.energy import SYSTEM, find_meter
from edgeopt.pipeline import timed_file
from edgeopt.recipe.tune import Goal
from edgeopt.tuning.goals import Figures, out_of_reach
from edgeopt.tuning.page import PAGE
from edgeopt.tuning.plan import plan_study
from edgeopt.tuning.request import TuneRequest
from edgeopt.tuning.study import tune
from edgeopt.tuning.trials import FILE, Ending
from edgeopt.tuning.winner import PARETO, WINNER
from tests.conftest import TINY_PLUGIN, TINY_RECIPE
from tests.metered_plugin import make_meter, quick

pytestmark = pytest.mark.usefixtures("imports_done_once")

PLUGINS = (TINY_PLUGIN, Path(__file__).parents[1] / "metered_plugin.py")
RECIPE = (
    TINY_RECIPE.replace('"tiny"\n', '"tiny"\nbaseline = false\n')
    .replace('use = "npz"', 'use = "metered"\nmillijoules = 30')
    .replace("[measure]", "[measure]\nenergy = true")
)
STUDY = """
[tune]
goal = { accuracy_drop = 0.5, energy_mj = 100 }
minimize = "energy_mj"
trials = 30

[tune.space]
"exports.metered.millijoules" = [1, 30, 500]
"""


def request(folder, text):
    (folder / "recipe.toml").write_text(text)
    return TuneRequest(folder / "recipe.toml", out=folder / "runs", plugin_files=PLUGINS)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SYSTEM, str(make_meter(folder / "sys")))
        patch.setattr(timed_file, "find_meter", lambda: quick(find_meter()))
        yield tune(request(folder, RECIPE + STUDY))


def test_the_winner_takes_the_least(result):
    trials = {each.values["exports.metered.millijoules"]: each for each in result.trials}
    assert set(trials) == {1, 30, 500}
    assert result.best is trials[1]
    assert result.best.objectives == (result.best.figures.energy_mj,)
    assert 1 <= trials[1].figures.energy_mj < 30 <= trials[30].figures.energy_mj < 100
    (row,) = result.run.report.rows
    assert 1 <= row.energy.mj_per_image < 30
    values = tomllib.loads((result.study.folder / WINNER).read_text())
    assert (values["exports"][0]["millijoules"], values["measure"]["energy"]) == (1, True)


def test_a_trial_whose_shapes_take_too_much_is_not_trained(result):
    (refused,) = (each for each in result.trials if each.ending is Ending.REFUSED)
    assert refused.values["exports.metered.millijoules"] == 500
    assert "energy_mj is 5" in refused.reason and "mJ, and the goal 100 mJ" in refused.reason
    assert not (result.study.folder / refused.folder).exists()


def test_trials_tell_their_energy(result):
    lines = [json.loads(line) for line in (result.study.folder / FILE).read_text().splitlines()[1:]]
    assert [line["figures"]["energy_mj"] for line in lines] == [each.figures.energy_mj for each in result.trials]
    (least,) = csv.DictReader((result.study.folder / PARETO).open())
    assert float(least["energy_mj"]) == result.best.figures.energy_mj
    page = (result.study.folder / PAGE).read_text().replace("\u00a0", " ")
    assert "energy_mj, less is better" in page
    assert "energy of an image by RAPL: package-0, idle subtracted" in page
    assert f"{result.best.figures.energy_mj:.3g} mJ" in page


@pytest.mark.parametrize(
    ("tune_table", "named"),
    [
        ("goal = { energy_mj = 5 }", "tune.goal.energy_mj"),
        ('minimize = ["bytes", "energy_mj"]', "tune.minimize"),
        ('goal = { device = "local", energy_mj = 5 }', "tune.goal.energy_mj"),
    ],
)
def test_energy_that_nobody_measures_is_refused_with_its_line(tune_table, named, tmp_path):
    text = f'{TINY_RECIPE}\n[[devices]]\nuse = "local"\n\n[tune]\n{tune_table}\n\n[tune.space]\n"dataset.image_size" = [8]\n'
    with pytest.raises(RecipeError) as error:
        plan_study(request(tmp_path, text))
    (problem,) = error.value.problems
    assert problem.message.startswith(f"{named}: the energy of an image is not measured")
    assert problem.location.line == text.splitlines().index(tune_table) + 1
    assert "[measure]" in problem.hint


def test_energy_has_the_slack_of_a_measurement():
    goal = Goal(energy_mj=10.0)
    assert not out_of_reach(goal, Figures(energy_mj=10.8), slack=0.03)
    (beyond,) = out_of_reach(goal, Figures(energy_mj=11.0), slack=0.03)
    assert (beyond.name, beyond.told) == ("energy_mj", "energy_mj is 11 mJ, and the goal 10 mJ")
    assert not out_of_reach(goal, Figures(energy_mj=None), slack=0.03)
