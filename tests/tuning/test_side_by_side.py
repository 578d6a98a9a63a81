"""Trials side by side in processes of their own: the same study, whoever dies on the way."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeopt.cli import app
from edgeopt.errors import UserError, WorkerError
from edgeopt.pipeline.cluster import Luggage
from edgeopt.recipe.tune import TuneSettings
from edgeopt.tuning.apart import Answer, Apart
from edgeopt.tuning.crew import LOG
from edgeopt.tuning.plan import plan_study
from edgeopt.tuning.request import TuneRequest
from edgeopt.tuning.study import tune
from edgeopt.tuning.trials import FILE, Ending, Trials
from edgeopt.tuning.worker import TrialJob
from edgeopt.workers import on_ray
from edgeopt.workers.bucket import Bucket
from edgeopt.workers.places import Errand
from tests.conftest import TINY_PLUGIN

pytestmark = [
    pytest.mark.usefixtures("imports_done_once"),
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes below /proc"),
]

MARK = "EDGEOPT_TEST_MARK"
PROBLEM = {"message": "no such operator", "hint": None, "location": None}
TWO = ("tune.workers=2", "tune.trials=2")
RECIPE = """\
schema = 1
name = "tiny"
dataset = { use = "stripes", image_size = 8 }
model = { use = "linear" }
trainer = { threads = 1 }
measure = { threads = 1, warmup = 1, runs = 5, rounds = 1 }

[[passes]]
use = "fit-stripes"
epochs = 5

[[exports]]
use = "npz"

[tune]
goal = { accuracy_drop = 0.5 }
minimize = "accuracy_drop"
trials = 3
at_once = 2

[tune.space]
"passes.0.epochs" = { low = 1, high = 9 }
"""


def request(folder, recipe=RECIPE, *overrides):
    folder.mkdir(exist_ok=True)
    (folder / "recipe.toml").write_text(recipe)
    return TuneRequest(
        folder / "recipe.toml", out=folder / "runs", plugin_files=(TINY_PLUGIN,), overrides=tuple(overrides)
    )


def told(trials):
    return [(each.values, each.ending, each.figures.scores, each.figures.bytes, each.objectives) for each in trials]


def written(folder):
    """The lines of the trials without what time they took."""
    lines = [json.loads(line) for line in (folder / "runs" / "tiny-tune" / FILE).read_text().splitlines()]
    figures = ("latency_ms", "memory_bytes", "latency_ratio")
    return [
        {
            name: {key: figure for key, figure in value.items() if key not in figures} if name == "figures" else value
            for name, value in line.items()
            if name != "seconds"
        }
        for line in lines
    ]


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "study"
    return folder, tune(request(folder))


def marked(mark):
    """The processes with a mark in their environment, and what they do."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_dead = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if not is_dead and f"{MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found[int(process.name)] = (process / "cmdline").read_bytes().decode().replace("\0", " ")
    return found


def begun(given, mark):
    """`edgeopt tune`, with a mark in the environment of all its processes."""
    command = [sys.executable, "-m", "edgeopt", "tune", str(given.recipe), "--plugin", str(TINY_PLUGIN)]
    command += ["--out", str(given.out), *(part for change in given.overrides for part in ("--set", change))]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=os.environ | {MARK: str(mark)}, stderr=quiet, stdout=quiet)


def until(condition, seconds=400):
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_two_processes_make_the_study_of_one(one_worker, tmp_path):
    folder, result = one_worker
    assert {each.ending for each in result.trials} == {Ending.DONE}
    both = tune(request(tmp_path / "both", RECIPE, "tune.workers=2"))
    assert told(both.trials) == told(result.trials)
    assert written(tmp_path / "both") == written(folder), "workers are in no key either"
    assert both.best.number == result.best.number
    study = both.study.folder
    assert not (study / "making").exists() and not (study / "rungs").exists()
    assert all("--- trial" in (study / each.folder / LOG).read_text() for each in both.trials)


def test_a_study_that_is_done_needs_no_cluster(one_worker, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "find_spec", lambda name: None)
    folder, result = one_worker
    shutil.copytree(folder, tmp_path / "study")
    given = request(tmp_path / "study", RECIPE, "tune.workers=ray")
    assert told(tune(given).trials) == told(result.trials)
    with pytest.raises(UserError, match="needs Ray"):
        tune(replace(given, trials=4))


@pytest.mark.timeout(900)
def test_a_killed_study_ends_all_its_processes_and_goes_on(one_worker, tmp_path):
    _, result = one_worker
    given = request(tmp_path / "killed", RECIPE.replace("epochs = 5", "epochs = 5\nseconds = 0.5"), *TWO)
    mark = str(tmp_path)
    process = begun(given, mark)
    both = until(lambda: [pid for pid, does in marked(mark).items() if "edgeopt.tuning.worker" in does][1:])
    assert both
    for pid in marked(mark):  # as they are while another one measures
        if pid != process.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP if "pipeline.job" in marked(mark).get(pid, "") else 0)
    process.kill()
    process.wait()
    assert until(lambda: not marked(mark), 60), marked(mark)
    again = tune(given)
    assert told(again.trials) == told(result.trials[:2])


@pytest.mark.timeout(900)
def test_a_trial_whose_process_dies_fails_alone(tmp_path):
    given = request(tmp_path / "study", RECIPE, *TWO)
    process = begun(given, tmp_path)

    def second():
        for pid, does in marked(tmp_path).items():
            with contextlib.suppress(OSError):
                if "edgeopt.tuning.worker" in does and "/1.request.json" in Path(does.split()[-1]).read_text():
                    return pid
        return None

    os.kill(until(second), signal.SIGKILL)
    assert process.wait() == 0
    first, second = Trials(given.out / "tiny-tune", plan_study(given).key).all
    assert (first.ending, second.ending) == (Ending.DONE, Ending.FAILED)
    assert second.reason is not None and second.reason.startswith("trial 1: the process was ended by SIGKILL, and not")
    assert until(lambda: not marked(tmp_path), 60)


def test_check_says_how_many_work_and_what_each_has(tmp_path):
    given = request(tmp_path / "study", RECIPE.replace("threads = 1 }\nmeasure", "threads = 512 }\nmeasure"))
    command = ["tune", str(given.recipe), "--plugin", str(TINY_PLUGIN), "--check", "--set", "tune.workers=2"]
    done = CliRunner().invoke(app, command, prog_name="edgeopt")
    assert done.exit_code == 0
    assert "at once   2 trials, each on " in done.stdout
    assert f"{given.recipe}:5: trainer.threads = 512, and each of 2 trials at once has " in done.stdout
    done = CliRunner().invoke(app, [*command[:-1], "tune.workers=3"], prog_name="edgeopt")
    assert "--set tune.workers=3: tune.workers = 3, and tune.at_once = 2 trials are proposed at once" in done.stdout


def test_what_workers_cannot_be_has_its_line(tmp_path):
    given = request(tmp_path / "study", RECIPE.replace("at_once = 2", 'at_once = 0\nworkers = "cloud"'))
    done = CliRunner().invoke(app, ["tune", str(given.recipe), "--plugin", str(TINY_PLUGIN)], prog_name="edgeopt")
    assert done.exit_code == 2
    assert f"{given.recipe}:19: tune.at_once: " in done.stderr
    assert f"{given.recipe}:20: tune.workers: " in done.stderr


def test_who_works_is_in_no_key():
    assert "workers" not in TuneSettings().model_dump()


class Here:
    """A cluster of one node, this machine: what it is handed it does not find on its disk."""

    told = "here"

    def send(self, label, log, function, *arguments):
        return function(*pickle.loads(pickle.dumps(arguments)), str(Path.cwd()))

    def on_every_node(self, ask, *arguments):
        yield "here", ask(*pickle.loads(pickle.dumps(arguments)))

    def end(self):
        """Nothing is on the way."""


@contextlib.contextmanager
def apart(tmp_path, monkeypatch):
    """Within, trials are made on a node with a disk of its own; gives what a study is asked for besides."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "disk"))
    monkeypatch.setattr("edgeopt.tuning.study.on_ray", lambda address, resources: contextlib.nullcontext(Here()))
    (tmp_path / "bucket").mkdir()
    yield "tune.workers=ray", f'tune.ray.bucket="{tmp_path}/bucket"'


def test_nodes_that_share_no_disk_make_the_same_study(tmp_path, one_worker, monkeypatch):
    with apart(tmp_path, monkeypatch) as asked:
        given = request(tmp_path / "study", RECIPE, "tune.trials=2", *asked)
        found = tune(given)
    _, alone = one_worker
    assert told(found.trials) == told(alone.trials)[:2]
    study, node = given.out / "tiny-tune", tmp_path / "disk" / "edgeopt" / "node"
    for trial in found.trials:
        report = json.loads((study / trial.folder / "report.json").read_text())
        assert report["recipe"]["name"] == trial.folder and (study / trial.folder / LOG).exists()
        assert (study / trial.folder / report["rows"][-1]["file"]).stat().st_size == report["rows"][-1]["size_bytes"]
    (there,) = node.glob("tiny-tune-*")
    assert not [file for file in there.rglob("*") if file.is_file()], "it keeps results of stages alone"
    made = [{file.parent.name for file in out.glob(".store/??/*/result.json")} for out in (given.out, node)]
    assert made[1] - made[0], "of trials that did not win"
    shared = {file.stem for file in (tmp_path / "bucket").glob("*.json")}
    assert made[0] | made[1] == shared
    assert not list((node / ".store" / "turns").glob("token-*"))


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ({"wrong": {"event": "error", "type": "UserError", "problems": [PROBLEM]}}, UserError, "no such operator"),
        ({"bug": "ZeroDivisionError: in fit-stripes"}, WorkerError, "ZeroDivisionError: in fit-stripes"),
    ],
)
def test_what_went_wrong_on_a_node_comes_back_with_its_log(tmp_path, answer, error, message):
    class Failing(Here):
        def send(self, label, log, function, parcel, *_):
            assert parcel.luggage.files == {"/x/mine.py": b"one = 1"} and parcel.request == "{}"
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                archive.writestr(LOG, "what was printed")
            return Answer(packed.getvalue(), **answer)

    (tmp_path / "request.json").write_text("{}")
    job = TrialJob(tmp_path / "request.json", tmp_path / "outcome.json", 1)
    errand = Errand(job, "trial 1", tmp_path / "jobs", tmp_path / "trial-1" / LOG)
    with pytest.raises(error, match=message) as raised:
        Apart(Failing(), Luggage(Bucket("memory://x"), {"/x/mine.py": b"one = 1"})).do(errand, lambda *_: None)
    assert (tmp_path / "trial-1" / LOG).read_text() == "what was printed"
    assert getattr(raised.value, "log", str(errand.log)) == str(errand.log) and not job.outcome.exists()


def test_a_node_that_cannot_use_the_bucket_is_named(tmp_path, monkeypatch):
    with apart(tmp_path, monkeypatch) as asked:
        given = request(tmp_path / "study", RECIPE, *asked)

        def gone(self, ask, *arguments):
            (tmp_path / "bucket").rename(tmp_path / "elsewhere")
            yield "here (10.0.0.1)", ask(*arguments)

        monkeypatch.setattr(Here, "on_every_node", gone)
        with pytest.raises(UserError, match=r"node here \(10.0.0.1\): the bucket .* is not there"):
            tune(given)
        both = replace(given, bucket=Bucket("memory://another"))
        with pytest.raises(UserError, match="the study is given memory://another") as error:
            tune(both)
        assert "EDGEOPT_BUCKET" in error.value.problems[0].hint
