"""How many processors count, and how busy they are."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from conftest import TINY_PLUGIN, TINY_RECIPE
from typer.testing import CliRunner

from edgeopt.cli import app
from edgeopt.cores import usable_cores
from edgeopt.workers.pool import Workers
from edgeopt.workers.spinning import busy_share, spin_settings


@dataclass(frozen=True)
class ToldJob:
    module: ClassVar[str] = "told"

    name: str


def test_a_process_that_is_held_to_one_core_counts_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {3}, raising=False)
    assert usable_cores() == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores() == 6


def test_threads_spin_for_long_on_an_idle_machine_alone_and_as_the_user_says() -> None:
    quiet, busy = (int(spin_settings({}, share)["GOMP_SPINCOUNT"]) for share in (0.05, 0.9))
    assert quiet > busy > 0
    for said in ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "ACTIVE"}):
        assert spin_settings(said, 0.9) == {}


@pytest.mark.parametrize(("idle", "share"), [(18, 0.1), (0, 1.0)])
def test_what_others_use_of_the_processors(idle: int, share: float, tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 0 50 1000 10 0 0 0 0 0\ncpu0 1 2 3\n")

    def later() -> None:
        time.sleep(0.1)
        stat.write_text(f"cpu  {100 + 20 - idle} 0 50 {1000 + idle} 10 0 0 0 0 0\ncpu0 1 2 3\n")

    threading.Thread(target=later).start()
    assert busy_share(0.5, stat) == pytest.approx(share)
    assert busy_share(0, tmp_path / "none") == 0


def test_a_worker_of_several_threads_is_told_how_long_to_spin_and_one_that_is_timed_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    (tmp_path / "told.py").write_text(
        "import json, os, sys\nname = json.load(open(sys.argv[1]))['name']\n"
        "open(name, 'w').write(os.environ.get('GOMP_SPINCOUNT', 'nothing'))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    names = [str(tmp_path / name) for name in ("several", "single", "timed")]
    several, single, timed = map(ToldJob, names)
    with Workers(tmp_path / "jobs", tmp_path / "log", lambda worker, event: None) as workers:
        workers.run(several, "several")
        workers.run(single, "single", 1)
        workers.finish(workers.start(timed, "timed", 2))
    told = [Path(name).read_text() for name in names]
    assert int(told[0]) > 0
    assert told[1:] == ["nothing", "nothing"]


def test_more_threads_than_processors_are_told_with_their_line(
    write_recipe: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeopt.recipe.notes.usable_cores", lambda: 2)
    recipe = write_recipe(TINY_RECIPE.replace("threads = 1", "threads = 3") + "\n[trainer]\nthreads = 2\n")
    line = recipe.read_text().splitlines().index("threads = 3") + 1
    shown = CliRunner().invoke(app, ["check", str(recipe), "--plugin", str(TINY_PLUGIN)])
    assert shown.exit_code == 0
    assert f"{recipe}:{line}: measure.threads = 3, and this process may use 2 processors" in shown.output
    assert "trainer.threads" not in shown.output
