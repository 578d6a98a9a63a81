"""`edgeopt compare` on whole runs of the tiny plugins: what is shown, written, timed together and refused."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY_PLUGIN, TINY_RECIPE
from typer.testing import CliRunner

import edgeopt
from edgeopt.cli import app

pytestmark = pytest.mark.usefixtures("imports_done_once")

Compare = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs below `runs`: the second rounds so harshly that classes are lost, the third reads images at another
    size and has an export more.
    """
    folder = tmp_path_factory.mktemp("compare")
    recipe = TINY_RECIPE.replace('use = "stripes"', 'use = "stripes"\nimages = 300').replace("runs = 5", "runs = 10")
    (folder / "a.toml").write_text(recipe.replace('"tiny"', '"a"'))
    (folder / "b.toml").write_text(recipe.replace('"tiny"', '"b"').replace("steps = 64", "steps = 3"))
    changes = (
        "name=c",
        "dataset.image_size=12",
        "passes.0.epochs=4",
        "exports=[{use='npz'},{use='npz',name='second'}]",
    )
    for name, overrides in (("a", ()), ("b", ()), ("a", changes)):
        edgeopt.run(folder / f"{name}.toml", overrides=overrides, out=folder / "runs", plugin_files=[TINY_PLUGIN])
    return folder


@pytest.fixture
def compare(folder: Path) -> Compare:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        with contextlib.chdir(folder):
            done = CliRunner().invoke(app, ["compare", *arguments], prog_name="edgeopt")
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

    return run


def test_two_runs_are_compared_image_by_image(compare: Compare, folder: Path) -> None:
    done = compare("runs/a", "runs/b", "--html", "out.html", "--json", "out.json")
    assert done.returncode == 0, done.stderr
    values = json.loads((folder / "out.json").read_text())
    (change,) = values["changes"]
    baseline, optimized = change["files"]
    assert baseline["same_bytes"] and baseline["accuracy"]["verdict"] == "same"
    reports = [json.loads((folder / "runs" / name / "report.json").read_text())["rows"] for name in "ab"]
    right = [round(rows[1]["test_accuracy"] * 45) for rows in reports]
    paired = optimized["accuracy"]["paired"]
    assert (paired["images"], paired["gained"] - paired["lost"]) == (45, right[1] - right[0])
    assert optimized["accuracy"]["verdict"] == "worse"
    assert [(each["key"], each["before_at"], each["after_at"]) for each in change["recipe"]] == [
        ("passes.1.steps", f"{folder}/a.toml:17", f"{folder}/b.toml:17")
    ]
    assert "this is a loss, not chance" in done.stdout.replace("\n  ", " ")
    page = (folder / "out.html").read_text()
    assert page.count("data:image/png") == min(len(optimized["accuracy"]["lost"]), 24) + len(
        optimized["accuracy"]["gained"]
    )
    assert 'src="http' not in page and 'href="http' not in page


def test_another_size_of_the_same_images_is_compared(compare: Compare, folder: Path) -> None:
    done = compare("runs/a", "runs/c", "--json", "sizes.json")
    assert done.returncode == 0, done.stderr
    (change,) = json.loads((folder / "sizes.json").read_text())["changes"]
    assert all(file["accuracy"]["paired"]["images"] == 45 for file in change["files"])
    assert {each["file"] for each in change["unpaired"]} == {
        f"second/{role}/model.npz" for role in ("baseline", "optimized")
    }
    assert {each["key"]: each["after_at"] for each in change["recipe"]} == {
        "dataset.image_size": None,
        "exports.1.use": None,
        "passes.0.epochs": None,
    }


def test_files_of_all_runs_take_turns(compare: Compare, folder: Path) -> None:
    options = ("--measure-together", "--plugin", str(TINY_PLUGIN), "--json", "together.json")
    done = compare("runs/a", "runs/b", "runs/c", *options)
    assert done.returncode == 0, done.stderr
    values = json.loads((folder / "together.json").read_text())
    assert values["together"]["cores"] >= 1 and not values["not_timed"]
    for change in values["changes"]:
        for file in change["files"]:
            latency = file["latency"]
            assert latency["together"] and latency["ratio"] > 0 and latency["verdict"]
            assert len(latency["before"]["turns"]) == len(latency["after"]["turns"]) == 5
            assert file["memory"] is None or file["memory"]["before"] > 0
    first = [change["files"][0]["latency"]["before"] for change in values["changes"]]
    assert first[0] == first[1], "each file is timed once"


def test_a_regression_ends_with_3(compare: Compare) -> None:
    done = compare("runs/a", "runs/b", "--gate")
    assert done.returncode == 3
    assert "regression in b: npz/optimized/model.npz: test accuracy is" in done.stderr
    assert compare("runs/a", "runs/b", "--gate", "--allow", "accuracy=1,latency=1000").returncode == 0


def test_what_cannot_be_timed_together_is_told_at_once(compare: Compare, folder: Path) -> None:
    for name in ("gone", "changed"):
        shutil.copytree(folder / "runs" / "b", folder / "copies" / name, dirs_exist_ok=True)
    (folder / "copies/gone/npz/optimized/model.npz").unlink()
    (folder / "copies/changed/npz/optimized/model.npz").write_bytes(b"another")
    runs = ("runs/a", "copies/gone", "copies/changed")
    done = compare(*runs, "--measure-together", "--plugin", str(TINY_PLUGIN))
    assert done.returncode == 2
    assert "copies/gone/npz/optimized/model.npz is gone" in done.stderr
    assert "copies/changed/npz/optimized/model.npz is not the file that the run made" in done.stderr
    assert "2 problems" in done.stderr
    done = compare("runs/a", "runs/b", "--measure-together")
    assert done.returncode == 2 and "there is no exporter 'npz'" in done.stderr


def test_a_file_that_dies_while_it_is_timed_leaves_the_others(compare: Compare, folder: Path) -> None:
    plugin = folder / "dying.py"
    text = TINY_PLUGIN.read_text().replace("self.calls += 1", "self.calls += 1\n        self.die()")
    dies = '    def die(self) -> None:\n        if "optimized" in str(self.path) and "/b/" in str(self.path):\n            os.abort()\n\n    def predict'
    text = text.replace("    def predict", dies).replace(
        "arrays = np.load(path)", "arrays = np.load(path)\n        self.path = path"
    )
    plugin.write_text(text)
    done = compare("runs/a", "runs/b", "--measure-together", "--plugin", str(plugin), "--json", "dead.json", "--gate")
    values = json.loads((folder / "dead.json").read_text())
    ((_name, reason),) = values["not_timed"].items()
    assert "SIGABRT" in reason
    baseline, optimized = values["changes"][0]["files"]
    assert baseline["latency"]["together"] and optimized["latency"] is None and "SIGABRT" in optimized["no_latency"]
    assert done.returncode == 3, "the accuracy is another matter"


def test_mistakes_of_the_command_line_and_of_folders_are_told_together(compare: Compare, folder: Path) -> None:
    (folder / "empty").mkdir(exist_ok=True)
    done = compare("runs", "empty", "runs/a", "runs/a", "--allow", "speed=2", "--html", "runs", "--json", "out.json")
    assert done.returncode == 2
    for message in (
        "--gate is not given",
        "there is no limit 'speed'",
        "--html runs is a folder",
        "it holds runs: name one of a, b, c",
        "empty: this is not a run",
        "runs/a is named twice",
        "6 problems",
    ):
        assert message in done.stderr, message
    assert "Traceback" not in done.stderr and not done.stdout
