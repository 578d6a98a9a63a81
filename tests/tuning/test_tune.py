"""A study from its recipe to its winner, on images of stripes."""

import csv
import io
import json
import re
import shutil
import tomllib
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import edgeopt
from edgeopt.cli import app
from edgeopt.errors import UserError
from edgeopt.pipeline.record import read_record
from edgeopt.recipe.tune import Goal
from edgeopt.tuning import page
from edgeopt.tuning.attempt import Attempts
from edgeopt.tuning.display import StudyDisplay
from edgeopt.tuning.goals import Missed
from edgeopt.tuning.journal import Journal
from edgeopt.tuning.page import PAGE, render_page
from edgeopt.tuning.request import TuneRequest
from edgeopt.tuning.study import tune
from edgeopt.tuning.trials import FILE, Ending
from edgeopt.tuning.winner import PARETO, WINNER, best, winner_text
from tests.conftest import TINY_PLUGIN, TINY_RECIPE

pytestmark = pytest.mark.usefixtures("imports_done_once")

LIMIT = 5_000  # bytes, between the files for images of 8 and of 16 px
SHARES = "[dataset.shares]\nvalidation = 0.3\ntest = 0.1\n\n[model]"
STUDY = f"""
[tune]
goal = {{ accuracy_drop = 0.05, bytes = {LIMIT} }}
minimize = "latency_ms"
trials = 4

[tune.space]
"dataset.image_size" = [8, 16]
"passes.round-weights" = {{ optional = true }}
"passes.round-weights.steps" = [1, 64]
"""


def request(folder, **changes):
    return TuneRequest(folder / "recipe.toml", out=folder / "runs", plugin_files=(TINY_PLUGIN,), **changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "recipe.toml").write_text(TINY_RECIPE.replace("[model]", SHARES) + STUDY)
    return folder, tune(request(folder))


def test_shapes_that_cannot_reach_the_goal_are_not_trained(made):
    _, result = made
    refused = [each for each in result.trials if each.ending is Ending.REFUSED]
    assert {each.values["dataset.image_size"] for each in refused} == {16}
    for each in refused:
        assert "and the goal 5.00 kB" in each.reason
        assert not (result.study.folder / each.folder).exists()
        assert not each.figures.scores
    done = [each for each in result.trials if each.ending is Ending.DONE]
    assert {each.values["dataset.image_size"] for each in done if each.number} == {8}


def test_the_recipe_as_it_stands_was_run_already(made):
    _, result = made
    standing = result.trials[0]
    assert standing.values == result.study.standing and standing.ending is Ending.DONE
    assert standing.figures.scores and [each.name for each in standing.missed] == ["bytes"]
    assert not [each for each in result.trials[1:] if each.values == standing.values]


def test_the_winner_reaches_the_goal_and_is_a_recipe(made):
    folder, result = made
    assert result.reaches_goal and result.best.figures.bytes <= LIMIT
    assert result.best.objectives[0] == min(each.objectives[0] for each in result.trials if each.reaches_goal)
    values = tomllib.loads((result.study.folder / WINNER).read_text())
    assert values["dataset"]["image_size"] == 8 and "tune" not in values
    again = edgeopt.run(result.study.folder / WINNER, out=folder / "runs", plugin_files=[TINY_PLUGIN])
    assert again.folder == result.run.folder
    assert [row.sha256 for row in again.report.rows] == [row.sha256 for row in result.run.report.rows]


def test_trials_are_judged_on_validation_images_and_the_winner_on_test_images(made):
    _, result = made
    validation, test = (
        len(np.load(folder / "answers.npz")["labels"])
        for folder in (result.study.folder / result.best.folder, result.run.folder)
    )
    assert (validation, test) == (27, 9)
    assert not (result.study.folder / result.best.folder / "report.html").exists()
    assert (result.run.folder / "report.html").exists()


def test_the_winner_s_files_are_the_trial_s_and_are_measured_again(made):
    _, result = made
    trial, winner = (
        read_record(folder).stages for folder in (result.study.folder / result.best.folder, result.run.folder)
    )
    own = {name for name, key in winner.items() if trial[name] != key}
    assert {each.partition("-")[0] for each in own} == {"program", "verify", "measure", "report"}


def test_a_finished_study_is_not_made_again_and_more_trials_go_on(made, monkeypatch, tmp_path):
    folder, result = made
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    monkeypatch.setattr(Attempts, "attempt", None)  # nothing is tried
    assert tune(request(copy)).trials == result.trials


def test_a_killed_study_goes_on_where_it_was(made, tmp_path):
    folder, result = made
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    trials = copy / "runs" / result.study.folder.name / FILE
    lines = trials.read_text().splitlines(keepends=True)
    trials.write_text("".join(lines[:3]) + lines[3][:40])  # two trials, and half of the third's line
    again = tune(request(copy))
    assert [each.values for each in again.trials] == [each.values for each in result.trials]
    assert [each.ending for each in again.trials] == [each.ending for each in result.trials]


def test_another_study_in_the_same_folder_is_refused(made, tmp_path):
    folder, _ = made
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    recipe = copy / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("accuracy_drop = 0.05", "accuracy_drop = 0.07"))
    with pytest.raises(UserError, match="another study") as error:
        tune(request(copy))
    assert "--fresh" in error.value.problems[0].hint


def test_the_tables_and_the_page_have_every_trial(made):
    _, result = made
    rows = list(csv.DictReader((result.study.folder / PARETO).open()))
    assert [int(row["trial"]) for row in rows] == [result.best.number]
    text = (result.study.folder / PAGE).read_text()
    assert all(f"trial {each.number}:" in text for each in result.trials if each.objectives)
    assert "<title>trial" in text and "http" not in text.replace("http://www.w3.org", "")
    lines = (result.study.folder / FILE).read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines[1:]] == list(range(len(result.trials)))


def test_the_page_of_a_study_without_a_goal_speaks_of_the_best(made):
    _, result = made
    assert f"Trial {result.best.number} reaches the goal: " in render_page(result)
    settings = result.study.settings.model_copy(update={"goal": Goal()})
    text = render_page(replace(result, study=replace(result.study, settings=settings)))
    assert f"Trial {result.best.number} is the best: " in text


def test_the_page_of_many_trials_has_the_best_and_some_others(made, monkeypatch):
    _, result = made
    monkeypatch.setattr(page, "_MOST", 3)
    text = render_page(result)
    rows = text.partition('<h2 id="all">')[2]
    shown = [int(number) for number in re.findall(r'<tr[^>]*><td class="number">(\d+)', rows)]
    assert result.best.number in shown and len(shown) < 4
    assert f"{len(shown)} of 4 trials" in text and "trials.jsonl" in text


def test_a_terminal_shows_some_of_the_trials_of_a_cluster(made):
    folder, result = made
    written = io.StringIO()
    with StudyDisplay(Console(file=written, force_terminal=True, width=90), result.study, request(folder)) as display:
        for number in range(1000):
            display.trial(number, {"dataset.image_size": 8})
    told = written.getvalue()
    assert "trial 15" in told and "trial 16" not in told and "and 984 more" in told


def test_optuna_reads_the_study(made):
    optuna = pytest.importorskip("optuna")
    _, result = made
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(result.study.folder / "journal.log"))
    )
    study = optuna.load_study(study_name="tiny", storage=storage)
    assert study.metric_names == ["latency_ms"]
    assert [each.user_attrs["ending"] for each in study.trials] == [str(each.ending) for each in result.trials]
    assert all(
        each.values == list(trial.objectives)
        for each, trial in zip(study.trials, result.trials, strict=True)
        if each.state is optuna.trial.TrialState.COMPLETE
    )
    assert [json.loads(each.params["dataset.image_size"]) for each in study.trials] == [
        each.values["dataset.image_size"] for each in result.trials
    ]
    journal = Journal(result.study.folder, "tiny", result.study.space, ("latency_ms",))
    journal.add(result.trials)  # nothing that it has is added again
    assert len(optuna.load_study(study_name="tiny", storage=storage).trials) == len(result.trials)


def test_a_journal_that_a_kill_cut_off_is_mended(made, tmp_path):
    """Optuna itself reads nothing behind half a line, and waits for half a minute for the lock of a dead process."""
    optuna = pytest.importorskip("optuna")
    from optuna.storages.journal import JournalFileBackend

    _, result = made
    file = tmp_path / "journal.log"
    for _kill in range(2):
        journal = Journal(tmp_path, "tiny", result.study.space, ("latency_ms",))
        journal.add(result.trials)
        file.write_bytes(file.read_bytes()[:-30])
        (tmp_path / "journal.log.lock").symlink_to(file)
    Journal(tmp_path, "tiny", result.study.space, ("latency_ms",)).add(result.trials)
    study = optuna.load_study(study_name="tiny", storage=optuna.storages.JournalStorage(JournalFileBackend(str(file))))
    assert len(study.trials) == len(result.trials)


def test_a_winner_whose_file_could_not_be_made_again_is_an_error(made, monkeypatch, tmp_path):
    folder, result = made
    failed = replace(result, run=replace(result.run, failures=(UserError("the memory has run out"),)))
    monkeypatch.setattr("edgeopt.tuning.study.tune", lambda *_: failed)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["tune", str(folder / "recipe.toml"), "--plugin", str(TINY_PLUGIN)])
    assert done.exit_code == 2
    assert "the memory has run out" in done.stderr


def test_a_goal_that_is_missed_ends_with_the_nearest_and_exit_code_3(made, monkeypatch, tmp_path):
    folder, result = made
    missed = tuple(replace(each, missed=(Missed("bytes", 10, 20, 1.0),)) for each in result.trials)
    ended = replace(result, trials=missed, best=best(missed))
    monkeypatch.setattr("edgeopt.tuning.study.tune", lambda *_: ended)
    monkeypatch.chdir(tmp_path)
    command = ["tune", str(folder / "recipe.toml"), "--plugin", str(TINY_PLUGIN)]
    done = CliRunner().invoke(app, command, prog_name="edgeopt")
    assert done.exit_code == 3
    assert f"no trial reaches the goal; the nearest is trial {ended.best.number}: bytes is 20 B" in done.stderr
    assert ended.best.ending is Ending.DONE
    assert "is the nearest to the goal" in winner_text(result.study, ended.best, len(missed))
