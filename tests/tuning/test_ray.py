"""Trials on a cluster: nodes that are not as this machine is are refused, and one that dies loses nothing."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeopt.cli import app
from edgeopt.errors import UserError, WorkerError
from edgeopt.pipeline.cluster import Look, require_same, seen, shipped, with_shipped_plugins
from edgeopt.pipeline.runner import store_of
from edgeopt.tuning.plan import plan_study
from edgeopt.tuning.study import tune
from edgeopt.tuning.trials import Trials
from edgeopt.workers import on_ray
from tests.conftest import TINY_PLUGIN, TINY_RECIPE
from tests.tuning.test_side_by_side import RECIPE, begun, marked, request, told, until

CLUSTER = ("tune.workers=ray", 'tune.ray.address="local"')
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")


class Nodes:
    """A cluster that answers what it is told to."""

    def __init__(self, **answers):
        self.answers = answers

    def on_every_node(self, ask, *arguments):
        for name, change in self.answers.items():
            yield name, change(ask(*arguments))


@pytest.fixture
def recipe(write_recipe):
    import tomllib

    return tomllib.loads(write_recipe(TINY_RECIPE).read_text())


def same(tmp_path, recipe, **answers):
    require_same(Nodes(**answers), store_of(tmp_path), recipe, (TINY_PLUGIN,))


def test_nodes_like_this_one_are_taken(tmp_path, recipe):
    same(tmp_path, recipe, one=lambda said: said, two=lambda said: said)
    assert not list((tmp_path / ".store" / "turns").glob("token-*"))


def test_each_node_that_differs_is_named_with_what(tmp_path, recipe):
    def older(said):
        versions = {**said.environment["versions"], "torch": "1.0"}
        return replace(said, environment={**said.environment, "versions": versions})

    with pytest.raises(UserError) as error:
        same(
            tmp_path,
            recipe,
            old=older,
            gone=lambda said: WorkerError("ModuleNotFoundError: No module named 'edgeopt'"),
            other=lambda said: replace(said, key="f" * 64),
            good=lambda said: said,
        )
    messages = [each.message for each in error.value.problems]
    assert messages[0].startswith("node old: versions.torch is '1.0', and here it is ")
    assert messages[1] == "node gone cannot be asked: ModuleNotFoundError: No module named 'edgeopt'"
    assert messages[2] == "node other: its results would be others: edgeopt's source or the processor differs"
    assert len(messages) == 3 and all(each.hint for each in error.value.problems)


def test_a_node_that_does_not_see_the_store_or_a_file_says_so(tmp_path, recipe):
    look = Look(recipe, (TINY_PLUGIN,), tmp_path / ".store" / "turns" / "token", "secret", str(tmp_path))
    assert seen(look).wrong == f"it does not see the store {tmp_path / '.store'}"
    look.token.parent.mkdir(parents=True)
    look.token.write_text("of another store")
    assert "does not see the store" in seen(look).wrong
    look.token.write_text("secret")
    assert seen(replace(look, folder="/nowhere")).wrong.startswith("there is no folder /nowhere")
    assert seen(replace(look, plugin_files=(tmp_path / "gone.py",))).wrong
    before = Path.cwd()
    assert seen(look).wrong is None and Path.cwd() == before


def test_plugins_are_shipped_by_value(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("one = 1\n")
    store = store_of(tmp_path)
    (first,) = shipped(store, [file])
    assert first.read_text() == "one = 1\n" and first.is_relative_to(store.plugins.resolve())
    file.write_text("one = 2\n")
    (second,) = shipped(store, [file])
    assert second != first and with_shipped_plugins(store, {"plugins": [str(file)]}) == {"plugins": [str(second)]}


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "find_spec", lambda name: None)
    given = request(tmp_path / "study", RECIPE, *CLUSTER)
    command = ["tune", str(given.recipe), "--plugin", str(TINY_PLUGIN), "--out", str(given.out)]
    command += [part for change in CLUSTER for part in ("--set", change)]
    done = CliRunner().invoke(app, command, prog_name="edgeopt")
    assert done.exit_code == 2
    assert 'workers = "ray" needs Ray' in done.stderr and "pip install 'edgeopt[ray]'" in done.stderr
    done = CliRunner().invoke(app, [*command, "--check"], prog_name="edgeopt")
    assert "at once   2 trials on a cluster of Ray, each on 1 processor of a node" in done.stdout


def test_a_cluster_nobody_uses_has_its_line(tmp_path):
    given = request(tmp_path / "study", RECIPE.replace("at_once = 2", 'ray = { address = "local" }'))
    with pytest.raises(UserError, match=r'\[tune.ray\] is for workers = "ray"') as error:
        plan_study(given)
    assert error.value.problems[0].location.line == 15


@needs_ray
def test_where_no_cluster_is_running_it_says_what_to_do(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(UserError, match="no cluster of Ray is running") as error,
        on_ray.on_ray("auto", on_ray.RayResources()),
    ):
        pass
    assert "ray start --head" in error.value.problems[0].hint


@needs_ray
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes below /proc")
def test_a_worker_of_ray_that_is_killed_gives_its_trial_to_another(tmp_path):
    given = request(tmp_path / "ray", RECIPE.replace("epochs = 5", "epochs = 5\nseconds = 0.5"), *CLUSTER)
    process = begun(given, tmp_path)

    def at_work():
        return [pid for pid, does in marked(tmp_path).items() if "edgeopt.tuning.worker" in does][1:]

    (second, *_) = until(at_work)
    parent = int(Path(f"/proc/{second}/stat").read_text().rpartition(")")[2].split()[1])
    assert "ray::" in marked(tmp_path)[parent]
    os.kill(parent, signal.SIGKILL)
    assert process.wait() == 0
    trials = Trials(given.out / "tiny-tune", plan_study(given).key).all
    alone = tune(request(tmp_path / "alone"))
    assert told(trials) == told(alone.trials)
    assert until(lambda: not marked(tmp_path), 60), marked(tmp_path)


@needs_ray
@pytest.mark.timeout(1800)
def test_nodes_of_ray_that_share_no_disk(tmp_path, monkeypatch):
    """The worker of Ray is told of no folder but its own, and of the bucket."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "disk"))
    (tmp_path / "bucket").mkdir()
    given = request(tmp_path / "ray", RECIPE, *CLUSTER, f'tune.ray.bucket="{tmp_path}/bucket"')
    found = tune(given)
    assert told(found.trials) == told(tune(request(tmp_path / "alone")).trials)
    assert (tmp_path / "disk/edgeopt/node/.store").exists()
    assert all((given.out / "tiny-tune" / trial.folder / "report.json").exists() for trial in found.trials)
