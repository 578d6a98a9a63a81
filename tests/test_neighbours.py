"""Runs side by side: while one measures, the workers of the others stand still, and none is left so."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from small_worker import SmallJob

from edgeopt.cores import own_cores
from edgeopt.errors import WorkerError
from edgeopt.workers.launch import can_fork
from edgeopt.workers.neighbours import Neighbours
from edgeopt.workers.own_cores import some_cores
from edgeopt.workers.pool import Workers

HERE = Path(__file__).parent
ALL = own_cores()

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes below /proc")


@pytest.fixture(autouse=True)
def small_worker(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")])))


@pytest.fixture
def workers(tmp_path):
    with Workers(tmp_path / "jobs", tmp_path / "log.txt", lambda *_: None) as made:
        yield made


def state(pid):
    """The letter that the system has for a process; "" where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def becomes(pid, *states, seconds=30):
    until = time.monotonic() + seconds
    while state(pid) not in states and time.monotonic() < until:
        time.sleep(0.02)
    return state(pid) in states


def test_who_measures_has_the_machine_for_itself(tmp_path, workers):
    pid = workers.start(SmallJob("hang", tmp_path), "hanging").event()["pid"]
    with Neighbours(tmp_path / "turns", workers, ALL) as _, Nobody(tmp_path) as other:
        with other.alone():
            assert becomes(pid, "T", seconds=0.5), "it is stopped before the block begins"
            begun = threading.Thread(target=lambda: workers.start(SmallJob("nothing", tmp_path), "later"))
            begun.start()
            begun.join(0.3)
            assert begun.is_alive(), "nothing begins meanwhile"
        assert becomes(pid, "S")
        begun.join(30)
        assert not begun.is_alive()


class Still:
    """Workers that are none."""

    def halt(self):
        pass

    def go_on(self):
        pass


def Nobody(folder):
    return Neighbours(folder / "turns", Still(), ALL)


def test_two_that_measure_take_turns(tmp_path):
    at_once, most = [], []

    def measure():
        with Nobody(tmp_path) as one:
            for _ in range(5):
                with one.alone():
                    at_once.append(1)
                    most.append(len(at_once))
                    time.sleep(0.01)
                    at_once.pop()

    threads = [threading.Thread(target=measure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(most) == 20 and set(most) == {1}


def test_a_killed_process_that_measured_leaves_nobody_stopped(tmp_path, workers):
    program = f"""
import time
from pathlib import Path
from edgeopt.workers.neighbours import Neighbours
class Still:
    def halt(self): pass
    def go_on(self): pass
with Neighbours(Path({str(tmp_path / "turns")!r}), Still(), frozenset()) as one, one.alone():
    print("alone", flush=True)
    time.sleep(1000)
"""
    pid = workers.start(SmallJob("hang", tmp_path), "hanging").event()["pid"]
    with Neighbours(tmp_path / "turns", workers, ALL):
        other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert other.stdout and other.stdout.readline() == "alone\n"
        assert becomes(pid, "T")
        other.kill()
        other.wait()
        other.stdout.close()
        assert becomes(pid, "S")


@pytest.mark.parametrize("by_nursery", [False, True])
def test_workers_that_are_stopped_end_with_a_killed_parent(tmp_path, by_nursery):
    if by_nursery and not can_fork():
        pytest.skip("this system cannot fork a process with its imports")
    program = f"""
import sys, threading, time
from pathlib import Path
from small_worker import SmallJob
from edgeopt.workers.pool import Workers
folder = Path({str(tmp_path)!r})
with Workers(folder / "jobs", folder / "log.txt", lambda *_: None) as workers, workers.nursery(("sqlite3",), 1) as nursery:
    place = nursery if {by_nursery} else None
    threading.Thread(target=workers.run, args=(SmallJob("hang", folder), "hanging", 1, None, place), daemon=True).start()
    while not list(folder.glob("*.pid")):
        time.sleep(0.02)
    workers.halt()
    print(nursery._process.pid, flush=True)
    time.sleep(1000)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout
    nursery = int(parent.stdout.readline())
    (pid,) = (int(file.stem) for file in tmp_path.glob("*.pid"))
    assert becomes(pid, "T") and becomes(nursery, "T")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert becomes(pid, "", "Z") and becomes(nursery, "", "Z")


def test_time_in_which_a_worker_is_stopped_does_not_count(tmp_path, workers):
    failed = []

    def run():
        try:
            workers.run(SmallJob("hang", tmp_path), "hanging", 1, 5.0)
        except WorkerError as error:
            failed.append((time.monotonic(), str(error)))

    thread = threading.Thread(target=run)
    thread.start()
    while not list(tmp_path.glob("*.pid")):
        assert not failed, "it had no time to begin"
        time.sleep(0.02)
    workers.halt()
    time.sleep(6)
    assert not failed
    workers.go_on()
    went_on = time.monotonic()
    thread.join(30)
    ((ended, why),) = failed
    assert "no sign of life for 5 s" in why and ended > went_on


def test_a_stopped_worker_can_be_ended(tmp_path, workers):
    worker = workers.start(SmallJob("hang", tmp_path), "hanging")
    pid = worker.event()["pid"]
    workers.halt()
    start = time.monotonic()
    workers.give_up(worker)
    assert becomes(pid, "", "Z") and time.monotonic() - start < 2.5


@pytest.mark.skipif(len(ALL) < 2, reason="there is one processor")
def test_processors_are_divided_and_measuring_has_all(tmp_path, workers):
    with some_cores(tmp_path / "turns", 1):
        mine = own_cores()
        assert len(mine) == 1
        others = []

        def take():
            os.sched_setaffinity(0, ALL)  # a process of its own has them all
            with some_cores(tmp_path / "turns", 1):
                others.append(own_cores())
            with some_cores(tmp_path / "turns", len(ALL)):
                others.append(own_cores())

        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
        assert not others[0] & mine and others[1] == ALL, "those that are not free cannot be had"
        with Neighbours(tmp_path / "turns", workers, ALL) as neighbours, neighbours.alone():
            assert own_cores() == ALL
        assert own_cores() == mine
    assert own_cores() == ALL
