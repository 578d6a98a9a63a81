"""Trackers, offline: the figures of epochs and files are where each tracker's own reader finds them."""

from __future__ import annotations

import ast
import math
import os
import sqlite3
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from conftest import TINY_PLUGIN, TINY_RECIPE

import edgeopt
from edgeopt.errors import RecipeError
from edgeopt.json_values import from_text, to_text
from edgeopt.options import TrainerSettings
from edgeopt.pipeline.request import RunResult
from edgeopt.tracking import tracked
from edgeopt.tracking.tracked import PACKAGES, TrackedRun
from edgeopt.tracking.trackers import Identity

pytestmark = pytest.mark.usefixtures("imports_done_once")

RECIPE = TINY_RECIPE.replace('name = "tiny"', 'name = "tracked"')


def run(folder: Path, *overrides: str, **options: bool) -> RunResult:
    (folder / "recipe.toml").write_text(RECIPE)
    return edgeopt.run(
        folder / "recipe.toml", overrides=overrides, out=folder / "runs", plugin_files=[TINY_PLUGIN], **options
    )


@pytest.fixture
def a_run(tmp_path: Path) -> TrackedRun:
    (tmp_path / "runs" / "name").mkdir(parents=True)
    return TrackedRun(Identity("name", "0123456789abcdef", tmp_path / "runs" / "name"), prefix="0-")


def events(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of each scalar in the event files below a folder, as TensorBoard's own loader reads them."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    for file in sorted(folder.rglob("events.out.tfevents.*")):
        for event in LegacyEventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    yield value.tag, event.step, value.simple_value


def wandb_records(data: bytes) -> Iterator[bytes]:
    """The records of a file of Weights & Biases: LevelDB's log format, blocks of 32 KiB, behind seven bytes."""
    assert data[:4] == b":W&B"
    place, parts = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # what is left of a block is padding
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            yield parts
            parts = b""


def track(a_run: TrackedRun, *loggers: str) -> tracked.Part:
    """Two trainings, the second of which goes on where the first one was stopped."""
    followed = from_text(TrackedRun, to_text(TrackedRun(a_run.identity, loggers, a_run.prefix)))
    for epochs in ((1, 2), (3,)):
        with followed.part("train") as part:
            part.describe({"seed": "17", "passes.0.use": "train"})
            for epoch in epochs:
                part.log({"validation accuracy": epoch / 10, "training loss": 1 / epoch}, epoch)
    return part


ACCURACIES = [(epoch, pytest.approx(epoch / 10)) for epoch in (1, 2, 3)]


def test_tensorboard(a_run: TrackedRun) -> None:
    pytest.importorskip("tensorboard")
    assert not track(a_run, "tensorboard").failures
    found = list(events(a_run.identity.folder / "tensorboard"))
    assert [(step, value) for tag, step, value in found if tag == "0-train/validation accuracy"] == ACCURACIES
    assert {tag for tag, _, _ in found} == {"0-train/validation accuracy", "0-train/training loss"}


def test_tensorboard_brings_no_tensorflow(a_run: TrackedRun) -> None:
    pytest.importorskip("tensorboard")
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from edgeopt.tracking.trackers import Identity, TensorBoard\n"
        f"TensorBoard(Identity('n', 'k', Path({str(a_run.identity.folder)!r})), 'p').close()\n"
        "assert not {'tensorflow', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_mlflow_without_a_server(a_run: TrackedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert not track(a_run, "mlflow").failures
    database = sqlite3.connect(a_run.identity.folder.parent / "mlflow.db")
    assert database.execute("select name from experiments where name = 'edgeopt'").fetchall()
    ((name, status),) = database.execute("select name, status from runs").fetchall()
    assert (name, status) == ("name", "FINISHED")
    query = "select step, value from metrics where key = '0-train/validation accuracy' order by step"
    assert database.execute(query).fetchall() == ACCURACIES
    assert ("recipe.passes.0.use", "train") in database.execute("select key, value from tags").fetchall()


_WRITTEN_S = 30.0


def test_weights_and_biases_offline(a_run: TrackedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert not track(a_run, "wandb").failures

    def told() -> list[tuple[int, float]]:
        found = []
        for file in sorted((a_run.identity.folder / "wandb").glob("offline-run-*/*.wandb")):
            assert file.stem == f"run-{a_run.identity.key}"
            for data in wandb_records(file.read_bytes()):
                record = Record()
                record.ParseFromString(data)
                items = {item.key or "".join(item.nested_key): float(item.value_json) for item in record.history.item}
                if "0-train/validation accuracy" in items:
                    found.append((int(items["0-train/step"]), items["0-train/validation accuracy"]))
        return sorted(found)

    give_up = time.monotonic() + _WRITTEN_S  # wandb writes in a process of its own, which a busy machine holds up
    while len(found := told()) < len(ACCURACIES) and time.monotonic() < give_up:
        time.sleep(0.2)
    assert found == ACCURACIES


def test_trackio_without_a_server(a_run: TrackedRun, tmp_path: Path) -> None:
    """In a process of its own, because trackio reads its folder when it is imported."""
    pytest.importorskip("trackio")
    import subprocess
    import sys

    code = f"""
from pathlib import Path
from edgeopt.tracking.tracked import TrackedRun
from edgeopt.tracking.trackers import Identity

run = TrackedRun(Identity("name", "0123456789abcdef", Path({str(a_run.identity.folder)!r})), prefix="0-")
for epochs in ((1, 2), (3,)):
    with TrackedRun(run.identity, ("trackio",), run.prefix).part("train") as part:
        part.describe({{"seed": "17", "passes.0.use": "train"}})
        for epoch in epochs:
            part.log({{"validation accuracy": epoch / 10}}, epoch)
    assert not part.failures, part.failures
from trackio.sqlite_storage import SQLiteStorage

logs = SQLiteStorage.get_logs("edgeopt", "name-01234567")
told = [(each["step"], each["0-train/validation accuracy"]) for each in logs]
asked = SQLiteStorage.get_run_config("edgeopt", "name-01234567")["passes.0.use"]
Path({str(tmp_path / "told.txt")!r}).write_text(repr((told, asked)))
"""
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert ast.literal_eval((tmp_path / "told.txt").read_text()) == ([(1, 0.1), (2, 0.2), (3, 0.3)], "train")


def test_one_that_fails_is_left_out_and_the_others_go_on(a_run: TrackedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Good:
        def __init__(self, identity: Identity, part: str) -> None: ...
        def log(self, values: dict[str, float], step: int) -> None:
            seen.append(step)

        def describe(self, values: dict[str, str]) -> None: ...
        def close(self) -> None:
            seen.append(math.inf)

    class Away(Good):
        def log(self, values: dict[str, float], step: int) -> None:
            raise ConnectionError("the server is away")

    monkeypatch.setattr(tracked, "_KINDS", {"good": Good, "away": Away})
    with TrackedRun(a_run.identity, ("away", "good")).part("train") as part:
        part.log({"loss": 1.0}, 1)
        part.log({"loss": 1.0}, 2)
    assert part.failures == {"away": "the server is away"}
    assert seen == [1, 2, math.inf]


def test_a_logger_changes_no_key_but_the_reports(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    plans = [
        edgeopt.check(tmp_path / "recipe.toml", overrides=overrides, plugin_files=[TINY_PLUGIN])
        for overrides in ((), ("trainer.loggers=[]",))
    ]
    assert plans[0].stages == plans[1].stages
    assert "loggers" not in TrainerSettings(loggers=("wandb",)).decisive()


def test_a_logger_that_is_not_installed_is_told_with_what_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeopt.recipe.lookup.installed_version", lambda package: None)
    (tmp_path / "recipe.toml").write_text(RECIPE + '\n[trainer]\nloggers = ["wandb", "mlflow"]\n')
    with pytest.raises(RecipeError) as caught:
        edgeopt.check(tmp_path / "recipe.toml", plugin_files=[TINY_PLUGIN])
    told = [(each.message, each.hint, each.location.line) for each in caught.value.problems]
    line = RECIPE.count("\n") + 3
    assert told == [
        (
            f"logger {logger!r} needs {PACKAGES[logger][0]}, which is not installed",
            f"pip install 'edgeopt[{logger}]'",
            line,
        )
        for logger in ("wandb", "mlflow")
    ]


def test_an_unknown_logger(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE + '\n[trainer]\nloggers = ["neptune"]\n')
    with pytest.raises(RecipeError, match="tensorboard"):
        edgeopt.check(tmp_path / "recipe.toml", plugin_files=[TINY_PLUGIN])


def test_the_figures_of_files_are_logged_at_the_end_of_a_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    result = run(tmp_path, 'trainer.loggers=["tensorboard"]')
    found = {tag: value for tag, _, value in events(result.folder / "tensorboard")}
    for row in result.report.rows:
        name = f"files/{row.export}/{row.role}"
        assert found[f"{name}/test accuracy"] == pytest.approx(row.test_accuracy)
        assert found[f"{name}/bytes"] == row.size_bytes
        assert found[f"{name}/p50 ms"] == pytest.approx(row.latency_ms.p50, rel=1e-5)
    assert not any("logger" in sentence for sentence in result.report.verdicts)


def test_a_tracker_that_fails_is_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    result = run(tmp_path, 'trainer.loggers=["mlflow"]')
    assert any("The logger mlflow failed and has not all figures" in sentence for sentence in result.report.verdicts)
    assert all(row.error is None for row in result.report.rows)
    assert "nonsense" in (result.folder / "log.txt").read_text()


class _Recorded:
    """A tracker that remembers what it is given."""

    seen: ClassVar[list[tuple[int, dict[str, float]]]] = []

    def __init__(self, identity: Identity, part: str) -> None: ...

    def log(self, values: dict[str, float], step: int) -> None:
        self.seen.append((step, dict(values)))

    def describe(self, values: dict[str, str]) -> None: ...

    def close(self) -> None: ...


def test_every_epoch_of_a_training_is_logged_once(
    a_run: TrackedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plugins.training_samples import make_context, make_net

    from edgeopt.tasks import Classification
    from edgeopt_lightning.fit.loop import fit
    from edgeopt_lightning.options import FitOptions

    monkeypatch.setattr(tracked, "_KINDS", {"recorded": _Recorded})
    monkeypatch.setattr(_Recorded, "seen", [])
    context = replace(make_context(tmp_path / "work"), tracked=replace(a_run, loggers=("recorded",)))
    options = FitOptions(epochs=2, batch_size=16)
    result = fit(make_net(), context.data, Classification(), options, context)
    fit(make_net(), context.data, Classification(), options, context)  # it is done already, and trains nothing
    assert [step for step, _ in _Recorded.seen] == [1, 2]
    for curve in result.curves:
        assert [values[f"0-train/{curve.name}"] for _, values in _Recorded.seen] == list(curve.y)
