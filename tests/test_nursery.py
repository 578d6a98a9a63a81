"""Workers that a nursery forks: as those that begin by themselves, with their imports done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from small_worker import SmallJob

from edgeopt.errors import ExportError, WorkerError
from edgeopt.workers.launch import can_fork
from edgeopt.workers.pool import Workers, worker_environment
from edgeopt.workers.worker import Event

HERE = Path(__file__).parent
IMPORTED = ("sqlite3",)  # stands for torch

pytestmark = pytest.mark.skipif(not can_fork(), reason="this system cannot fork a process with its imports")


class Crew:
    """Workers, what they said, and where."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: dict[str, Event] = {}
        self.log = folder / "log.txt"
        self.workers = Workers(folder / "jobs", self.log, self._hear)

    def _hear(self, label: str, event: Event) -> None:
        self.said[label] = event

    def run(self, do: str, nursery: Any, label: str = "", limit_s: float | None = None) -> Event:
        self.workers.run(SmallJob(do, self.folder), label or do, 1, limit_s, nursery)
        return self.said[label or do]


@pytest.fixture
def crew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")])))
    crew = Crew(tmp_path)
    with crew.workers:
        yield crew


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def gone(*pids: int) -> bool:
    until = time.monotonic() + 30
    while any(map(is_alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(is_alive, pids))


def test_a_fork_is_a_worker_like_any_other(crew: Crew) -> None:
    alone = crew.run("nothing", None, "alone")
    with crew.workers.nursery(IMPORTED, 1) as nursery:
        forks = [crew.run("nothing", nursery, f"fork {number}") for number in range(3)]
    assert not alone["imported"]
    for fork in forks:
        assert fork["imported"]
        assert fork["group"] == fork["pid"], "it is ended with all that it started"
        assert fork["descriptors"] == alone["descriptors"], "nothing of the nursery or of other workers is left open"
        assert fork["threads_of_numpy"] == alone["threads_of_numpy"] == "1"
    assert len({fork["pid"] for fork in forks}) == 3
    assert crew.log.read_text().count("to the log") == 4


def test_how_a_fork_ends_is_told(crew: Crew) -> None:
    with crew.workers.nursery(IMPORTED, 1) as nursery:
        with pytest.raises(ExportError, match="frobnicate"):
            crew.run("mistake", nursery)
        with pytest.raises(WorkerError, match="bug: ZeroDivisionError: a bug"):
            crew.run("bug", nursery)
        with pytest.raises(WorkerError, match="crash: the process was ended by SIGSEGV"):
            crew.run("crash", nursery)
        with pytest.raises(WorkerError, match="no sign of life for 1 s"):
            crew.run("hang", nursery, limit_s=1.0)
        assert crew.run("nothing", nursery)["imported"], "a fork that dies takes nothing with it"
    assert gone(*(event["pid"] for event in crew.said.values()))


def test_a_fork_works_where_its_parent_does(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    with crew.workers.nursery(IMPORTED, 1) as nursery:
        crew.run("nothing", nursery, "before")
        monkeypatch.chdir(crew.folder)
        assert crew.run("nothing", nursery, "after")["folder"] == str(crew.folder)
    assert crew.run("nothing", None, "alone")["folder"] == str(crew.folder)


def test_what_a_worker_leaves_to_its_end_is_done(crew: Crew) -> None:
    """It ends without taking its modules apart: threads, functions of `atexit` and what was printed are not lost."""
    with crew.workers.nursery(IMPORTED, 1) as nursery:
        for place, label in ((None, "alone"), (nursery, "fork")):
            pid = crew.run("leave-work-behind", place, label)["pid"]
            assert all((crew.folder / f"{pid}.{name}").exists() for name in ("atexit", "thread"))
    assert crew.log.read_text().count("unfinished") == 2


def test_several_forks_at_once_and_the_end_of_all(crew: Crew) -> None:
    with crew.workers.nursery(IMPORTED, 1) as nursery:
        hanging = [
            crew.workers._begin(SmallJob("hang-twice", crew.folder), f"{n}", nursery.start, worker_environment())
            for n in range(3)
        ]
        pids = [(worker.event()["pid"], worker.event()["pid"]) for worker in hanging]
        hanging[0].end()
        assert gone(*pids[0])
        assert all(map(is_alive, chain(*pids[1:])))
        crew.workers.end()
    assert gone(*chain(*pids))


def test_without_a_nursery_that_lives_workers_begin_by_themselves(crew: Crew) -> None:
    (crew.folder / "starts_a_thread.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    for modules in (("there_is_no_such_module",), ("starts_a_thread",)):
        os.environ["PYTHONPATH"] += os.pathsep + str(crew.folder)
        with crew.workers.nursery(modules, 1) as nursery:
            assert not crew.run("nothing", nursery)["imported"], "asked for before it ended"
            assert nursery._process.wait(30)
            assert not crew.run("nothing", nursery)["imported"], "and after"


def test_a_nursery_that_is_killed_does_not_hold_a_run(crew: Crew) -> None:
    with crew.workers.nursery(IMPORTED, 1) as nursery:
        worker = crew.workers._begin(SmallJob("hang", crew.folder), "hanging", nursery.start, worker_environment())
        pid = worker.event()["pid"]
        nursery._process.kill()
        nursery._process.wait()
        worker.end()
    assert gone(pid)


def test_nothing_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from pathlib import Path
from small_worker import SmallJob
from edgeopt.workers.pool import Workers
folder = Path({str(tmp_path)!r})
with Workers(folder / "jobs", folder / "log.txt", lambda *_: None) as workers, workers.nursery(("sqlite3",), 1) as nursery:
    print(nursery._process.pid, flush=True)
    workers.run(SmallJob("hang", folder), "hanging", 1, None, nursery)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout
    nursery = int(parent.stdout.readline())
    until = time.monotonic() + 60
    while not (pids := [int(file.stem) for file in tmp_path.glob("*.pid")]) and time.monotonic() < until:
        time.sleep(0.05)
    assert pids
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert gone(nursery, *pids)
