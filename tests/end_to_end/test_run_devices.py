"""`edgeopt run` of a recipe with devices: this machine, one that answers otherwise, and one that is away."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import TINY_PLUGIN, TINY_RECIPE
from typer.testing import CliRunner

import edgeopt
from edgeopt.cli import app
from edgeopt.errors import RecipeError
from edgeopt.pipeline.request import RunResult
from edgeopt.report.html import render_html

pytestmark = pytest.mark.usefixtures("imports_done_once")

PLUGINS = [TINY_PLUGIN, Path(__file__).parents[1] / "bench" / "devices_plugin.py"]
DEVICES = """
[[devices]]
use = "local"

[[devices]]
use = "mistaken"
name = "board"

[[devices]]
use = "away"
name = "pi"

[gates.devices.board]
accuracy = 0.9
p50_ms = 1000

[gates.devices.local]
latency_ratio = 100
"""
LINE = len(TINY_RECIPE.splitlines()) + 10  # of the device that is away; one line is put in
STAGES = ("device-local", "device-board", "measure")


@pytest.fixture(scope="module")
def recipe(finished: Path) -> Path:
    """The recipe of a run that has finished, with devices: all but these is in the store."""
    path = finished.parents[1] / "devices.toml"
    path.write_text(
        TINY_RECIPE.replace('"tiny"', '"there"').replace("[measure]", "[measure]\ndevice_images = 7") + DEVICES
    )
    return path


def run(recipe: Path, finished: Path, *overrides: str, **options: bool) -> RunResult:
    return edgeopt.run(recipe, overrides=overrides, out=finished.parent, plugin_files=PLUGINS, **options)


@pytest.fixture(scope="module")
def result(recipe: Path, finished: Path) -> RunResult:
    return run(recipe, finished)


def made(finished: Path, result: RunResult) -> dict[str, int]:
    """When the results of stages were made that are measured."""
    keys = json.loads((result.folder / "run.json").read_text())["stages"]
    files = {name: finished.parent / ".store" / keys[name][:2] / keys[name] / "result.json" for name in STAGES}
    return {name: file.stat().st_mtime_ns for name, file in files.items()}


def test_every_file_is_measured_on_each_device(result: RunResult) -> None:
    local, board, pi = result.report.devices
    assert [(each.name, each.kind) for each in (local, board, pi)] == [
        ("local", "local"), ("board", "mistaken"), ("pi", "away")
    ]  # fmt: skip
    files = [row.file for row in result.report.rows]
    for device in (local, board):
        assert device.facts is not None
        assert [each.file for each in device.files] == files
        for each in device.files:
            assert each.error is None
            assert each.latency_ms is not None
            assert each.latency_ms.runs == 5
            assert each.answers is not None
            assert each.answers.images == 7
    for each in local.files:
        assert each.answers is not None
        assert (each.answers.agreement, each.answers.differing, each.answers.max_logit_difference) == (1.0, 0, 0.0)
    for each in board.files:
        assert each.answers is not None
        assert each.answers.differing
        assert each.answers.agreement < 1
    assert not pi.files


def test_a_device_that_answers_otherwise_is_said_first(result: RunResult) -> None:
    away, *others = result.report.verdicts[:3]
    assert away == "pi was not measured to the end: pi: it is away: nobody answers (switch it on)."
    for role, sentence in zip(("baseline", "optimized"), others, strict=True):
        assert sentence.startswith("board answers otherwise than this machine: npz float32 ")
        assert f"({role})" in sentence and "of 7 images" in sentence


def test_a_device_that_is_away_fails_its_rows_and_not_the_run(result: RunResult) -> None:
    assert all(row.error is None and row.latency_ms for row in result.report.rows)
    (failure,) = result.failures
    assert f"devices.toml:{LINE}: pi: it is away" in str(failure)
    assert (result.folder / "lock.toml").is_file()


def test_gates_are_judged_on_devices(result: RunResult) -> None:
    gates = {(gate.name, gate.device): gate for gate in result.report.gates}
    assert set(gates) == {("accuracy", "board"), ("p50_ms", "board"), ("latency_ratio", "local")}
    assert not gates["accuracy", "board"].passed
    assert gates["p50_ms", "board"].passed
    assert gates["p50_ms", "board"].figure_text.endswith(" ms")
    assert "on board was missed" in gates["accuracy", "board"].message


def test_what_was_measured_is_kept_and_who_was_away_is_asked_again(
    result: RunResult, recipe: Path, finished: Path
) -> None:
    """And terminal and page have a part for each device."""
    before = made(finished, result)
    arguments = ["run", str(recipe), "--out", str(finished.parent)]
    told = CliRunner().invoke(app, [*arguments, *(word for file in PLUGINS for word in ("--plugin", str(file)))])
    assert told.exit_code == 2
    assert "pi: it is away" in told.stderr and "switch it on" in told.stderr
    assert "on local" in told.stdout and "on board" in told.stdout
    assert "board: a processor with a fault" in told.stdout
    assert made(finished, result) == before
    page = render_html(result.report)
    part = page.partition('id="devices"')[2].partition("</section>")[0]
    assert part.index("What the files did on local") < part.index("What the files did on board")
    assert "Not measured to the end: pi: it is away" in part
    assert page.index("board answers otherwise") < page.index('id="files"')


def test_runs_are_compared_on_the_same_device_alone(result: RunResult, tmp_path: Path) -> None:
    other = Path(shutil.copytree(result.folder, tmp_path / "other"))
    report = json.loads((other / "report.json").read_text())
    slower = report["devices"][0]["files"][1]["latency_ms"]
    for name in ("p50", "p90"):
        slower[name] *= 9
    slower["turns"] = [9 * turn for turn in slower["turns"]]
    report["devices"][1]["facts"]["processor"] = "another board"
    (other / "report.json").write_text(json.dumps(report))
    comparison = edgeopt.compare([result.folder, other], limits=edgeopt.Limits())
    (change,) = comparison.changes
    there = {(file.role, each.device): each for file in change.files for each in file.devices}
    assert there["baseline", "local"].latency.ratio == pytest.approx(1)
    assert there["optimized", "local"].latency.ratio == pytest.approx(9)
    assert there["optimized", "board"].latency.ratio is None
    assert "a processor with a fault and another board" in there["optimized", "board"].latency.why_not
    assert "it is away" in there["optimized", "pi"].no_latency
    assert any(
        "No verdict on the latency on a device: board: two different devices" in each for each in change.verdicts
    )
    judged = {gate.file: gate.passed for gate in change.gates if gate.name == "latency"}
    assert judged["npz/optimized/model.npz on board"] is None
    assert judged["npz/baseline/model.npz on local"] is True


def test_a_file_that_failed_on_a_device_is_tried_again(
    result: RunResult, recipe: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with `measure_again` all devices are asked anew."""
    one = ("devices=[{use='moody'}]", "gates={}", "name=moody")
    failed = run(recipe, finished, *one)
    ((baseline, optimized),) = (each.files for each in failed.report.devices)
    assert (baseline.error, optimized.error) == (None, "out of memory")
    (failure,) = failed.failures
    assert optimized.file in str(failure) and "out of memory" in str(failure)

    monkeypatch.setenv("MOODY_DEVICE_IS_MENDED", "1")
    mended = run(recipe, finished, *one)
    assert not mended.failures
    assert [each.error for there in mended.report.devices for each in there.files] == [None, None]

    keys = json.loads((mended.folder / "run.json").read_text())["stages"]
    before = {name: made_at(finished, keys[name]) for name in ("device-moody", "measure")}
    assert not run(recipe, finished, *one).failures
    assert before == {name: made_at(finished, keys[name]) for name in before}, "the same files, device and settings"
    run(recipe, finished, *one, measure_again=True)
    assert all(made_at(finished, keys[name]) > when for name, when in before.items())


def made_at(finished: Path, key: str) -> int:
    return (finished.parent / ".store" / key[:2] / key / "result.json").stat().st_mtime_ns


def test_devices_can_be_left_out(result: RunResult, recipe: Path, finished: Path) -> None:
    without = run(recipe, finished, devices=False)
    assert without.failures == ()
    assert without.report.devices == ()
    assert without.report.gates == ()
    assert "Devices were left out of this run (local, board, pi); gates on devices were not judged." in (
        without.report.verdicts
    )
    assert len(without.report.recipe.resolved["devices"]) == 3


def test_gates_on_devices_that_are_not_there_have_their_line(recipe: Path) -> None:
    text = recipe.read_text().replace("[gates.devices.local]", "[gates.devices.bord]")
    mistaken = recipe.with_name("mistaken.toml")
    mistaken.write_text(text)
    with pytest.raises(RecipeError) as told:
        edgeopt.check(mistaken, plugin_files=PLUGINS)
    line = next(number for number, each in enumerate(text.splitlines(), 1) if "bord" in each)
    assert f"mistaken.toml:{line}: gates on the device 'bord'" in str(told.value)
    assert "did you mean 'board'" in str(told.value)
