"""Runs and studies on machines that share a bucket and no disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import fsspec.implementations.memory
import pytest
from conftest import TINY_PLUGIN, TINY_RECIPE
from rich.console import Console
from typer.testing import CliRunner

import edgeopt
from edgeopt.cli import app
from edgeopt.pipeline import exchange
from edgeopt.pipeline.request import RunResult
from edgeopt.workers.pool import Workers

pytestmark = pytest.mark.usefixtures("imports_done_once")

RESULTS, BETWEEN = 12, 3
"""Of a run: data, model, two passes, two programs, two files, their answers, latency and report; and those that only
finished stages need."""


MEASURED = ["latency: npz-baseline", "latency: npz-optimized", "report"]


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels of all workers that a test starts."""
    labels: list[str] = []
    start = Workers.start

    def noted(self: Workers, job: Any, label: str, *arguments: Any, **options: Any) -> Any:
        labels.append(label)
        return start(self, job, label, *arguments, **options)

    monkeypatch.setattr(Workers, "start", noted)
    return labels


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, nursery_of_tests: Any) -> Path:
    """A folder with a bucket in it, which a first machine has filled."""
    folder = tmp_path_factory.mktemp("first")
    (folder / "bucket").mkdir()
    run(folder, folder / "bucket")
    return folder


@pytest.fixture
def bucket(first: Path, tmp_path: Path) -> Path:
    """A copy of the bucket, which a test may spoil."""
    return shutil.copytree(first / "bucket", tmp_path / "bucket")


def run(machine: Path, bucket: Path | str, *overrides: str, **options: Any) -> tuple[RunResult, str]:
    """A run on a machine, whose disk is a folder; and what it said."""
    machine.mkdir(exist_ok=True)
    (machine / "recipe.toml").write_text(TINY_RECIPE)
    said = Console(file=StringIO(), width=200)
    result = edgeopt.run(
        machine / "recipe.toml",
        overrides=overrides,
        out=machine / "runs",
        plugin_files=[TINY_PLUGIN],
        bucket=str(bucket),
        **{"console": said, **options},
    )
    assert isinstance(said.file, StringIO)
    return result, said.file.getvalue()


def made(machine: Path) -> dict[str, bytes]:
    """What a run made: all files of its folder but those that tell of the run itself."""
    folder = machine / "runs" / "tiny"
    files = (file for file in folder.rglob("*") if file.is_file() and file.name not in ("run.json", "log.txt"))
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def records(bucket: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in bucket.glob("*.json")}


def test_a_second_machine_makes_nothing_anew(first: Path, bucket: Path, tmp_path: Path, started: list[str]) -> None:
    result, said = run(tmp_path / "second", bucket)
    assert not started
    assert made(tmp_path / "second") == made(first)
    assert said.count(", from the bucket") == len(said.splitlines()) == RESULTS - BETWEEN
    _, said = run(tmp_path / "second", bucket)
    assert not started and not said, "it has all of it now"
    assert records(bucket) == records(first / "bucket") and not result.notes


def test_what_differs_is_made_of_what_does_not(bucket: Path, tmp_path: Path, started: list[str]) -> None:
    _, said = run(tmp_path / "second", bucket, "passes.1.steps=32")
    assert "fit-stripes, from the bucket" in said and "round-weights, from" not in said
    assert started == ["run", "export: npz, optimized", "verify: npz, optimized", *MEASURED]
    assert "6 results put into the bucket" in said
    started.clear()
    _, said = run(tmp_path / "third", bucket, "passes.1.steps=32")
    assert not started, "the first machine's results and the second one's"


def test_a_damaged_result_is_made_anew_and_put_again(bucket: Path, tmp_path: Path, started: list[str]) -> None:
    (record,) = [file for file in bucket.glob("*.json") if b'"label": "export: npz, optimized"' in file.read_bytes()]
    (model,) = [file for file in bucket.glob(f"{record.stem}.*") if file.read_bytes()[:2] == b"PK"]
    whole = model.read_bytes()
    model.write_bytes(whole[:-1])
    _, said = run(tmp_path / "second", bucket)
    assert "export: npz, optimized: the bucket's result is damaged, and is made anew: model.npz is not" in said
    assert started == ["export: npz, optimized"]
    assert "1 result put into the bucket" in said
    started.clear()
    _, said = run(tmp_path / "third", bucket)
    assert not started and "damaged" not in said


def test_fresh_results_take_the_place_of_what_is_there(bucket: Path, tmp_path: Path, started: list[str]) -> None:
    before = records(bucket)
    _, said = run(tmp_path / "second", bucket, fresh=True)
    assert "from the bucket" not in said and "run" in started
    after = records(bucket)
    assert before.keys() == after.keys() and all(after[name] != text for name, text in before.items())


def test_what_is_measured_again_takes_the_place_of_what_was(bucket: Path, tmp_path: Path, started: list[str]) -> None:
    """All else is fetched, also what a report alone reads."""
    before = records(bucket)
    run(tmp_path / "second", bucket, measure_again=True)
    assert started == MEASURED
    after = records(bucket)
    assert sum(after[name] != text for name, text in before.items()) == 2
    assert made(tmp_path / "second")["report.json"] in {file.read_bytes() for file in bucket.iterdir()}


def test_a_bucket_gets_what_was_made_before_there_was_one(
    first: Path, tmp_path: Path, monkeypatch: Any, started: list[str]
) -> None:
    shutil.copytree(first / "runs", tmp_path / "second" / "runs")
    (tmp_path / "bucket").mkdir()
    monkeypatch.setattr(exchange, "SMALL_BYTES", 10_000)
    monkeypatch.setattr(exchange, "BYTES_A_SECOND", 0)
    _, said = run(tmp_path / "second", tmp_path / "bucket")
    assert not started and "data: stripes: larger than it is worth to move, and not put into the bucket" in said
    monkeypatch.setattr(exchange, "BYTES_A_SECOND", 1e12)
    _, said = run(tmp_path / "second", tmp_path / "bucket")
    assert "larger" not in said and records(tmp_path / "bucket") == records(first / "bucket")


class Breaking(fsspec.implementations.memory.MemoryFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """A host that goes away after so many files."""

    protocol = "breaking"
    store: ClassVar[dict[str, Any]] = {}
    left = 0
    asked_in_vain = 0

    def _open(self, path: str, *arguments: Any, **options: Any) -> Any:
        type(self).left -= 1
        if self.left < 0:
            type(self).asked_in_vain += 1
            raise ConnectionResetError("the host has gone")
        return super()._open(path, *arguments, **options)


@pytest.fixture
def breaking() -> Iterator[type[Breaking]]:
    fsspec.register_implementation("breaking", Breaking, clobber=True)
    Breaking.asked_in_vain = 0
    yield Breaking
    Breaking.store.clear()


LOST = (
    "the bucket breaking://bucket cannot be used: ConnectionResetError: the host has gone; the run goes on without it"
)


def test_a_bucket_that_fails_in_the_middle_is_said_once(
    first: Path, tmp_path: Path, breaking: type[Breaking], started: list[str]
) -> None:
    breaking.left = 12
    result, _ = run(tmp_path / "second", "breaking://bucket", console=None)
    assert result.notes == (LOST,) and breaking.asked_in_vain == 1
    files = [name for name in made(first) if name.endswith(".npz") and name.startswith("npz")]
    assert files and all(made(tmp_path / "second")[name] == made(first)[name] for name in files)
    breaking.left = 1000
    started.clear()
    _, said = run(tmp_path / "second", "breaking://bucket")
    assert not started and "put into the bucket" in said, "the next run completes it"
    assert len([name for name in Breaking.store if name.endswith(".json")]) == RESULTS


def test_one_that_cannot_be_used_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: Any, started: list[str]
) -> None:
    (tmp_path / "recipe.toml").write_text(TINY_RECIPE)
    command = [str(tmp_path / "recipe.toml"), "--plugin", str(TINY_PLUGIN), "--out", str(tmp_path / "runs")]
    done = CliRunner().invoke(app, ["run", *command, "--bucket", str(tmp_path / "none")], prog_name="edgeopt")
    assert done.exit_code == 2 and f"the bucket {tmp_path / 'none'} is not there" in done.stderr
    monkeypatch.setenv("EDGEOPT_BUCKET", "nowhere://bucket")
    for several in ([], ["--workers", "2"]):
        done = CliRunner().invoke(app, ["run", *command, *several], prog_name="edgeopt")
        assert done.exit_code == 2 and done.stderr.count("the bucket nowhere://bucket cannot be used: ValueError") == 1
        assert "Traceback" not in done.stderr
    assert not started and not (tmp_path / "runs" / ".store").exists()


STUDY = """
[tune]
goal = { accuracy_drop = 0.5 }
minimize = "bytes"
trials = 2

[tune.space]
"passes.1.steps" = [16, 64]
"""


def tune(machine: Path, bucket: str, monkeypatch: Any) -> str:
    machine.mkdir()
    (machine / "recipe.toml").write_text(TINY_RECIPE + STUDY)
    monkeypatch.setenv("EDGEOPT_BUCKET", bucket)
    command = ["tune", str(machine / "recipe.toml"), "--plugin", str(TINY_PLUGIN), "--out", str(machine / "runs")]
    done = CliRunner().invoke(app, command, prog_name="edgeopt")
    assert done.exit_code == 0, done.stderr
    return done.stderr


def test_trials_of_a_study_share_it_and_survive_it(
    tmp_path: Path, breaking: type[Breaking], monkeypatch: Any, started: list[str]
) -> None:
    breaking.left = most = 10_000
    tune(tmp_path / "first", "breaking://bucket", monkeypatch)
    assert started
    started.clear()
    breaking.left = most
    tune(tmp_path / "second", "breaking://bucket", monkeypatch)
    assert not started, "not even the winner on test images"
    one, other = (tmp_path / name / "runs/tiny-tune/winner.toml" for name in ("first", "second"))
    assert one.read_bytes() == other.read_bytes()
    breaking.left = most - breaking.left - 12  # of the winner's run, which fetches most
    said = tune(tmp_path / "third", "breaking://bucket", monkeypatch)
    assert started and said.count(LOST) == 1 and breaking.asked_in_vain == 1
    assert (tmp_path / "third/runs/tiny-tune/winner.toml").read_bytes() == one.read_bytes()
