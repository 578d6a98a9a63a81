"""Whole runs with the tiny plugins: caching, resuming, failures, gates, locks."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from conftest import TINY_PLUGIN, TINY_RECIPE

import edgeopt
from edgeopt.errors import (
    DataError,
    ExportError,
    LockError,
    NothingChangedError,
    RecipeError,
    StorageError,
    WorkerError,
)
from edgeopt.pipeline import runner
from edgeopt.pipeline.clean import Choice, clean
from edgeopt.pipeline.request import RunResult

pytestmark = pytest.mark.usefixtures("imports_done_once")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "recipe.toml").write_text(TINY_RECIPE)
    return folder


def run(folder: Path, *overrides: str, **options: bool) -> RunResult:
    return edgeopt.run(
        folder / "recipe.toml", overrides=overrides, out=folder / "runs", plugin_files=[TINY_PLUGIN], **options
    )


@pytest.fixture(scope="module")
def finished(folder: Path) -> RunResult:
    return run(folder)


def stage_folders(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in (folder / "runs" / ".store").glob("??/*/result.json")}


def test_what_a_run_leaves_behind(finished: RunResult) -> None:
    made = {file.relative_to(finished.folder).as_posix() for file in finished.folder.rglob("*") if file.is_file()}
    assert made == {
        "answers.npz",
        "log.txt",
        "lock.toml",
        "run.json",
        "report.html",
        "report.json",
        *(f"npz/{role}/{file}" for role in ("baseline", "optimized") for file in ("model.npz", "card.json")),
        *(f"samples/{sample.index}.png" for sample in finished.report.samples),
    }
    report = json.loads((finished.folder / "report.json").read_text())
    assert [row["role"] for row in report["rows"]] == ["baseline", "optimized"]
    for row in report["rows"]:
        assert row["agreement"] == 1.0
        assert row["max_logit_difference"] < 1e-4
        assert row["accuracy_interval"][0] <= row["test_accuracy"] <= row["accuracy_interval"][1]
        assert row["size_bytes"] == (finished.folder / row["file"]).stat().st_size
        assert row["latency_ms"]["runs"] == 5
        assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p90"]
    card = json.loads((finished.folder / "npz/optimized/card.json").read_text())
    assert card["classes"] == ["left", "top", "middle"]
    assert card["preprocessing"]["image_size"] == 16
    assert card["input"]["layout"] == "NCHW"
    for vector in card["self_test"]["vectors"]:
        expected = [value for _index, value in vector["answers"]]
        assert vector["file_answers"] == pytest.approx(expected, abs=card["self_test"]["tolerance"] / 10)
    assert {stage["name"] for stage in report["stages"]} >= {"data", "model", "pass-0-fit-stripes", "measure"}


def test_a_served_file_answers_as_in_its_report(finished: RunResult) -> None:
    """The test images that a run keeps are those that its files answered."""
    report = finished.report
    arguments = ["serve", str(finished.folder), "--port", "0", "--plugin", str(TINY_PLUGIN)]
    server = subprocess.Popen([sys.executable, "-m", "edgeopt", *arguments], stdout=subprocess.PIPE, text=True)
    assert server.stdout
    try:
        address = next(word.strip(",") for word in server.stdout.readline().split() if word.startswith("http"))
        for sample in report.samples:
            kept = urllib.request.urlopen(f"{address}v1/samples/tiny/{sample.index}").read()
            for file, predicted in sample.predictions.items():
                query = urllib.parse.urlencode({"file": f"tiny/{file}", "prepared": "true"})
                answer = json.load(urllib.request.urlopen(f"{address}v1/predict?{query}", kept))
                assert answer["label"] == report.dataset.classes[predicted.label]
                assert answer["confidence"] == pytest.approx(predicted.confidence, abs=1e-6)
    finally:
        server.terminate()
        assert server.wait(30) == 0


def test_an_unchanged_recipe_makes_nothing_again(folder: Path, finished: RunResult) -> None:
    before = stage_folders(folder)
    again = run(folder)
    assert stage_folders(folder) == before
    assert again.report == finished.report


def test_a_change_makes_again_what_comes_after_it(folder: Path, finished: RunResult) -> None:
    before = stage_folders(folder)
    run(folder, "passes.1.steps=32", "name=other")
    made = [json.loads(file.read_text())["values"] for file in stage_folders(folder).keys() - before.keys()]
    assert sum("record" in values for values in made) == 1  # the second pass alone
    assert not any("fingerprint" in values for values in made)


def test_the_same_recipe_gives_the_same_bytes(folder: Path, finished: RunResult) -> None:
    before = (finished.folder / "npz/optimized/model.npz").read_bytes()
    old = stage_folders(folder)
    run(folder, fresh=True)
    assert (finished.folder / "npz/optimized/model.npz").read_bytes() == before
    assert any(stage_folders(folder)[file] != changed for file, changed in old.items())


def test_latency_alone_is_measured_again(folder: Path, finished: RunResult) -> None:
    before = stage_folders(folder)
    again = run(folder, measure_again=True)
    after = stage_folders(folder)
    changed = {file for file in before if after[file] != before[file]}
    assert (len(changed), after.keys()) == (2, before.keys()), "the measurement and the report"
    assert not list((folder / "runs/.store/pending").iterdir())
    for new, old in zip(again.report.rows, finished.report.rows, strict=True):
        assert new.latency_ms != old.latency_ms
        assert (new.test_accuracy, new.size_bytes) == (old.test_accuracy, old.size_bytes)
    assert run(folder).report == again.report


def test_a_damaged_result_is_made_again(folder: Path, finished: RunResult) -> None:
    store = folder / "runs/.store"
    programs = list(store.glob("??/*/program.pt2"))
    for file in programs:
        file.write_bytes(file.read_bytes()[:100])
    for file in store.glob("??/*/model.npz"):
        file.unlink()
    run(folder)
    assert sum(file.stat().st_size > 100 for file in programs) == 2  # those of this recipe


#: How a file fails while it is made, verified or timed; the error's kind, and what its row says.
FAILURES: dict[str, tuple[type[Exception], str]] = {
    "user": (ExportError, "frobnicate"),
    "crash": (WorkerError, "SIGSEGV"),
    "bug": (WorkerError, "export of exporter 'npz': ZeroDivisionError: a bug"),
    "overflow": (ExportError, "not finite"),
    "abort-later": (WorkerError, "SIGABRT"),
    "hang-later": (WorkerError, "no sign of life"),
    "hang-at-once": (WorkerError, "no sign"),
}


@pytest.fixture(scope="module")
def partly_failed(folder: Path, finished: RunResult) -> RunResult:
    """A run of one file that is right, and of one for each way to fail."""
    exports = ", ".join(f"{{use='npz', name='{failure}', fail='{failure}', only='optimized'}}" for failure in FAILURES)
    return run(folder, "name=fails", f"exports=[{{use='npz'}}, {exports}]", "baseline=false", "measure.timeout_s=6")


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_file_fails_its_row_alone(failure: str, partly_failed: RunResult) -> None:
    kind, message = FAILURES[failure]
    rows = {row.export: row for row in partly_failed.report.rows}
    assert message in rows[failure].error
    errors = [error for error in partly_failed.failures if message in str(error)]
    assert errors
    assert all(isinstance(error, kind) for error in errors)


def test_beside_files_that_failed_the_others_are_whole(partly_failed: RunResult) -> None:
    right, *failed = partly_failed.report.rows
    assert {row.export for row in failed} == set(FAILURES)
    assert right.error is None
    assert right.latency_ms is not None
    assert (partly_failed.folder / right.file).exists()
    assert (partly_failed.folder / "report.html").exists()
    assert len(partly_failed.failures) == len(FAILURES)
    assert {file.parent.parent.name for file in partly_failed.folder.rglob("model.npz")} == {"npz"}


def test_a_float_file_is_whole_beside_an_optimized_one_that_failed(folder: Path, finished: RunResult) -> None:
    result = run(folder, "name=fails-alone", "exports.0.fail=user", "exports.0.only=optimized")
    baseline, optimized = result.report.rows
    assert "frobnicate" in optimized.error
    assert baseline.error is None
    assert baseline.latency_ms is not None
    assert (result.folder / "npz/baseline/model.npz").exists()
    assert not (result.folder / "npz/optimized/model.npz").exists()


def test_a_file_answers_and_is_timed_in_calls_of_as_many_images_as_the_app_makes(
    folder: Path, finished: RunResult
) -> None:
    one = run(folder, "name=one-image", "exports.0.takes=1")
    assert not one.failures
    several = run(folder, "name=several-images", "exports.0.takes=4", "measure.batch_size=4")
    assert not several.failures
    images = several.report.dataset.splits["test"]
    assert images % 4, "the last call is filled up"
    for row in several.report.rows:
        assert sum(map(sum, row.confusion or ())) == images
        assert any("hold for 4 images at once" in warning for warning in row.warnings)
    assert any("depends on the others" in verdict for verdict in several.report.verdicts)
    (error, *_) = run(folder, "name=other-number", "exports.0.takes=4").failures
    assert "a call has 1 images" in str(error)


def test_a_folder_holds_nothing_of_another_recipe_of_its_name_but_what_a_user_put_there(
    folder: Path, finished: RunResult
) -> None:
    first = run(folder, "name=twice")
    own, edited = first.folder / "npz/optimized/notes.txt", first.folder / "npz/baseline/card.json"
    own.write_text("mine")
    edited.write_text("edited")
    second = run(folder, "name=twice", "exports.0.name=other")
    there = {file.relative_to(second.folder).as_posix() for file in second.folder.glob("*/*/*")}
    assert there == {
        "npz/optimized/notes.txt",
        "npz/baseline/card.json",
        *(f"other/{role}/{file}" for role in ("baseline", "optimized") for file in ("model.npz", "card.json")),
    }
    removed, kept = second.notes
    assert "npz/optimized/model.npz" in removed and "npz/baseline/model.npz" in removed
    assert "npz/baseline/card.json" in kept and "changed since" in kept
    assert removed in (second.folder / "log.txt").read_text()
    assert not run(folder, "name=twice", "exports.0.name=other").notes


def test_what_a_run_refers_to_is_not_cleaned_away(folder: Path, finished: RunResult) -> None:
    run(folder)
    run(folder, "name=other-seed", "seed=23")
    clean(folder / "runs", Choice())
    before = stage_folders(folder)
    run(folder)
    run(folder, "name=other-seed", "seed=23")
    assert stage_folders(folder) == before, "nothing was made again"
    assert not list((folder / "runs/.store/holders").iterdir())


def test_mistakes_of_a_pass_name_their_line(folder: Path) -> None:
    with pytest.raises(NothingChangedError) as caught:
        run(folder, "passes.1.on=nothing")
    (problem,) = caught.value.problems
    assert problem.message == "no weight was rounded"
    assert str(problem.location) == f"{folder / 'recipe.toml'}:14"


def test_a_head_that_nothing_trains_is_refused(tmp_path: Path) -> None:
    """Also where the model was built for a recipe that trained it, and stands in the store."""
    text = TINY_RECIPE.replace('use = "linear"', 'use = "linear"\nweights = "of-others"')
    (tmp_path / "recipe.toml").write_text(text.replace('[[passes]]\nuse = "fit-stripes"\n', ""))
    for _ in range(2):
        with pytest.raises(RecipeError) as caught:
            run(tmp_path)
        (problem,) = caught.value.problems
        assert problem.message.startswith(
            "'1' of the model is drawn at random, because the weights are of other classes"
        )
        assert "no pass of this recipe trains" in problem.message
        assert str(problem.location) == f"{tmp_path / 'recipe.toml'}:10"
        (tmp_path / "trained").mkdir(exist_ok=True)
        (tmp_path / "trained" / "recipe.toml").write_text(text)
        edgeopt.run(tmp_path / "trained" / "recipe.toml", out=tmp_path / "runs", plugin_files=[TINY_PLUGIN])


def test_mistakes_in_the_data_name_their_line(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        run(folder, "dataset.classes=['left', 'tap']")
    assert "did you mean 'top'" in str(caught.value)
    assert str(caught.value).startswith("--set dataset.classes=")
    with pytest.raises(DataError):
        run(folder, "dataset.images=4")


def test_gates(folder: Path, finished: RunResult) -> None:
    passed = run(folder, "gates.agreement=0.99", "gates.accuracy=0.5")
    assert passed.gates_passed
    assert len(passed.report.gates) == 3  # agreement of two files, accuracy of the one that ships
    missed = run(folder, "gates.size_ratio=3")
    assert not missed.gates_passed


def test_smoke_runs_keep_apart_and_judge_no_gates(folder: Path, finished: RunResult) -> None:
    result = run(folder, "gates.size_ratio=3", smoke=True)
    assert result.folder.name == "tiny-smoke"
    assert result.report.smoke
    assert result.gates_passed


def test_lock(folder: Path, finished: RunResult) -> None:
    run(folder)
    run(folder, locked=True)
    with pytest.raises(LockError) as caught:
        run(folder, "seed=18", "passes.1.steps=8", locked=True)
    assert len(caught.value.problems) == 2
    assert "recipe.seed is 18 and was 17" in str(caught.value)
    lock = finished.folder / "lock.toml"
    text = lock.read_text()
    beside = folder / "recipe.lock.toml"
    beside.write_text(text.replace('npz/optimized/model.npz" = "', 'npz/optimized/model.npz" = "0'))
    with pytest.raises(LockError, match=r"model\.npz") as caught:
        run(folder, locked=True)
    assert "copy lock.toml of the run's folder over" in caught.value.problems[0].hint
    beside.write_text("not toml")
    with pytest.raises(LockError, match="not a lock"):
        run(folder, locked=True)
    beside.unlink()
    lock.unlink()
    with pytest.raises(LockError, match="there is no lock"):
        run(folder, locked=True)


def test_a_folder_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StorageError, match="is a file, not a folder"):
        edgeopt.run(folder / "recipe.toml", out=file, plugin_files=[TINY_PLUGIN])


# ---- killed runs ---------------------------------------------------------------------------------------------------


def start(folder: Path, *overrides: str, command: Sequence[str] = ("run",)) -> subprocess.Popen[str]:
    sets = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "edgeopt", *command, "recipe.toml", "--plugin", str(TINY_PLUGIN), *sets]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Iterator[object], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if next(condition):
            return
        time.sleep(0.05)
    raise AssertionError("it never happened")


def checkpoints(folder: Path, name: str = "epoch.pt") -> Iterator[object]:
    while True:
        yield list((folder / "runs/.store/work").glob(f"*/{name}"))


def workers_of(folder: Path) -> list[int]:
    """Processes that work on a job of the runs in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode()
        except OSError:
            continue
        if re.search(r"edgeopt\.(pipeline\.job|sensitivity\.worker)", command) and _is_below(process, folder):
            found.append(int(process.name))
    return found


def _is_below(process: Path, folder: Path) -> bool:
    try:
        return (process / "cwd").resolve() == folder.resolve()
    except OSError:
        return False


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on_where_it_was(signal_number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(TINY_RECIPE)
    slow = ("passes.0.seconds=1.5", "passes.0.epochs=4", "baseline=false")
    process = start(tmp_path, *slow)
    wait_for(checkpoints(tmp_path))
    assert workers_of(tmp_path)
    os.kill(process.pid, signal_number)
    _out, err = process.communicate(timeout=60)
    if signal_number is signal.SIGINT:
        assert process.returncode == 130
        assert "Traceback" not in err
        assert "same command" in err  # says how to resume
    wait_for(iter(lambda: not workers_of(tmp_path), None), 30)
    assert not list((tmp_path / "runs").glob("tiny/report.json"))

    again = run(tmp_path, *slow)
    assert again.report.passes[0].facts["resumed_at"] > 0


def test_a_killed_scan_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(TINY_RECIPE)
    images = "dataset.images=12000"  # their validation split takes several rounds
    slow = (images, "probe.seconds=0.3")
    asked = ("sensitivity", "--of", "light", "--levels", "0.1", "--complete")
    process = start(tmp_path, *slow, command=asked)
    wait_for(checkpoints(tmp_path, "scan.json"))
    assert workers_of(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    wait_for(iter(lambda: not workers_of(tmp_path), None), 30)
    assert not list((tmp_path / "runs").glob("tiny/sensitivity-light/*.csv"))
    (checkpoint,) = (tmp_path / "runs/.store/work").glob("*/scan.json")
    ((layer, level, looks, seen, verdict),) = json.loads(checkpoint.read_text())
    before = seen["lost"]
    seen["lost"] = seen["right"]  # a mark by which to know in the end that these images were not run again
    checkpoint.write_text(json.dumps([[layer, level, looks, seen, verdict]]))

    again = start(tmp_path, *slow, command=asked)
    _out, err = again.communicate(timeout=500)
    assert again.returncode == 0, err
    assert not checkpoint.exists()
    (row,) = csv.DictReader((tmp_path / "runs/tiny/sensitivity-light/sensitivity.csv").open())
    lost = round(float(row["score"]) * int(row["images"]))
    assert int(row["images"]) > seen["right"] + seen["wrong"]
    assert lost >= seen["right"] - seen["gained"] > 2 * before, "what was known counts, and is not run again"


def test_two_runs_at_once_on_one_store(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(TINY_RECIPE)
    processes = [start(tmp_path, "baseline=false"), start(tmp_path, "baseline=false")]
    for process in processes:
        _out, err = process.communicate(timeout=500)
        assert process.returncode == 0, err
    report = json.loads((tmp_path / "runs/tiny/report.json").read_text())
    assert [row["error"] for row in report["rows"]] == [None]


def test_an_export_that_hangs_fails_its_row_alone(
    folder: Path, finished: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_SILENCE_LIMIT_S", 8.0)
    result = run(folder, "name=hang-export", "exports.0.fail=hang-export", "exports.0.only=optimized")
    baseline, optimized = result.report.rows
    assert "export: npz, optimized: no sign of life for 8 s, so it was ended" in (optimized.error or "")
    assert baseline.latency_ms is not None


def test_ranks_of_a_cluster_do_not_count_in_a_run_on_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipe.toml").write_text(TINY_RECIPE)
    for name in ("NODE_RANK", "LOCAL_RANK", "GROUP_RANK"):
        monkeypatch.setenv(name, "1")
    result = run(tmp_path, "baseline=false")
    assert not result.failures
    assert (tmp_path / "runs/tiny/report.json").exists()
