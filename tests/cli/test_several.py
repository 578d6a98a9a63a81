"""`edgeopt run` with several recipes: each fails alone, and a table says at the end what became of them."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from edgeopt.cli import app
from tests.conftest import TINY_PLUGIN

pytestmark = pytest.mark.usefixtures("imports_done_once")

RECIPE = """\
schema = 1
name = "NAME"
dataset = { use = "stripes", image_size = 8 }
model = { use = "linear" }
trainer = { threads = 1 }
measure = { threads = 1, warmup = 1, runs = 5, rounds = 1 }

[[passes]]
use = "fit-stripes"

[[exports]]
use = "npz"
"""


@pytest.fixture
def recipes(tmp_path):
    """One that runs, one with an option that there is not, and one whose gate cannot be reached."""
    texts = {
        "good": RECIPE,
        "wrong": RECIPE.replace("image_size = 8", "image_size = 8, colour = 3"),
        "missed": RECIPE + "[gates]\nlatency_ratio = 0.001\n",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.toml").write_text(text.replace("NAME", name))
    return {name: str(tmp_path / f"{name}.toml") for name in texts}


def run(tmp_path, *arguments):
    command = ["run", *arguments, "--plugin", str(TINY_PLUGIN), "--out", str(tmp_path / "runs")]
    return CliRunner().invoke(app, command, prog_name="edgeopt")


def test_each_of_several_recipes_fails_alone(tmp_path, recipes):
    done = run(tmp_path, *recipes.values())
    assert done.exit_code == 2
    assert f"{recipes['wrong']}:3: unknown key 'dataset.colour'" in done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[1] for line in lines if line[:1] in (["good"], ["wrong"], ["missed"]) and len(line) > 1] == [
        "done",
        "failed",
        "missed",
    ]
    assert all((tmp_path / "runs" / name / "report.json").exists() for name in ("good", "missed"))
    assert "missed: " in done.stdout and "latency_ratio" in done.stdout


@pytest.mark.timeout(900)
def test_side_by_side_they_end_as_one_after_the_other(tmp_path, recipes):
    done = run(tmp_path, recipes["good"], recipes["missed"], "--workers", "2")
    assert done.exit_code == 3, done.stderr
    assert f"done    {recipes['good']}" in done.stderr and f"failed  {recipes['missed']}" in done.stderr
    assert "latency_ratio" in done.stderr
    assert all((tmp_path / "runs" / name / "process.log").exists() for name in ("good", "missed"))
    assert not list((tmp_path / "runs").glob("*/outcome.json"))


def test_what_cannot_be_run_together_is_refused(tmp_path, recipes):
    (tmp_path / "twin.toml").write_text(RECIPE.replace("NAME", "good"))
    done = run(tmp_path, recipes["good"], str(tmp_path / "twin.toml"))
    assert done.exit_code == 2 and "2 recipes have the name 'good'" in done.stderr
    assert "is named twice" in run(tmp_path, recipes["good"], recipes["good"]).stderr
    done = run(tmp_path, recipes["good"], "--workers", "none")
    assert done.exit_code == 2 and "--workers none: this is no number of workers" in done.stderr
