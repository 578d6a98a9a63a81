"""Faults of processes: killed, stopped, hanging, without memory, and with a clock that jumps."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from urllib.parse import urlencode, urlsplit

from fault_bench import RECIPE, RUN_NAME, Bench, Ending, Fault, How, Started, Work, stop
from kills import TINY_PLUGIN

_MEGABYTE = 1 << 20
_DAY_S = 86_400
_SHARES = {"run": 0.6, "tune": 0.15, "serve": 0.25}
_CLOCK = """\
import os, time

_time, _file = time.time, os.environ.get("EDGEOPT_FAULTS_CLOCK", "")


def _jumped():
    try:
        with open(_file) as file:
            return _time() + float(file.read() or 0)
    except OSError:
        return _time()


if _file:
    time.time = _jumped
    time.time_ns = lambda: int(_jumped() * 1e9)
"""
_HANGING = """\
import dataclasses
import os
import runpy
import time
from pathlib import Path

import edgeopt

TINY = runpy.run_path({tiny!r})
CAUGHT = Path({caught!r})


def hang(where):
    if CAUGHT.exists() and CAUGHT.read_text() == where:
        time.sleep(100_000)


class Hanging(TINY["NpzPredictor"]):
    def __init__(self, path):
        hang("open")
        super().__init__(path)

    def predict(self, batch):
        hang("call" if self.calls else "first call")
        return super().predict(batch)


@edgeopt.hookimpl
def edgeopt_exporters():
    (npz,) = TINY["edgeopt_exporters"]()
    yield dataclasses.replace(npz, name="hanging", open=lambda path, threads: Hanging(path))
"""


# ---- kills ---------------------------------------------------------------------------------------------------------


def _killed(bench: Bench, work: Work, count: int) -> Iterator[Ending]:
    """Kills one after the other, each in what the one before left, until the work ends; then all over again.

    From kill to kill there is a little more time, so that there is progress on a machine that is busy with other work.
    """
    out, most_s = bench.new_out(), 0.3 * bench.seconds(work)
    whom = cycle(("parent", "all", "worker"))
    for _ in range(count):
        started = bench.start(work, out)
        code = started.wait(bench.random.uniform(0.1, 1.0) * most_s)
        most_s *= 1.1
        if code is None:
            code = _kill(bench, started, next(whom))
        ending = bench.judged(work, out, started, code)
        yield ending
        if ending.how is How.RIGHT:
            shutil.rmtree(out)
            most_s = 0.3 * bench.seconds(work)
    started = bench.start(work, out)
    yield bench.judged(work, out, started, started.wait(), goes_on=True)


def _kill(bench: Bench, started: Started, whom: str) -> int | None:
    """Kills the parent, all, or one worker, after which the parent ends by itself."""
    workers = [each for each in started.processes() if each != started.process.pid]
    if whom == "worker" and workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(bench.random.choice(workers), signal.SIGKILL)
        return started.wait()
    if whom == "all":
        started.kill_all()
    started.process.kill()
    return started.wait()


def kills_run(bench: Bench) -> Iterator[Ending]:
    yield from _killed(bench, bench.run, round(_SHARES["run"] * bench.kills))


def kills_tune(bench: Bench) -> Iterator[Ending]:
    yield from _killed(bench, bench.tune, round(_SHARES["tune"] * bench.kills))


@dataclass(frozen=True)
class _Server:
    started: Started
    port: int

    def answer(self) -> object:
        """What the file answers for the image; None where it does not answer."""
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            with contextlib.closing(connection):
                name = json.loads(self._asked(connection, "GET", "/v1/files"))[0]["name"]
                path = f"/v1/predict?{urlencode({'file': name})}"
                answer = json.loads(self._asked(connection, "POST", path, _image()))
        except (OSError, http.client.HTTPException, ValueError):
            return None
        return answer.get("top") or None

    @staticmethod
    def _asked(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> bytes:
        connection.request(method, path, body)
        return connection.getresponse().read()

    def answered(self, seconds: float = 60.0) -> object:
        """The same as soon as it answers."""
        end = time.monotonic() + seconds
        while (answer := self.answer()) is None and time.monotonic() < end:
            time.sleep(0.05)
        return answer


def _image() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.radial_gradient("L").resize((20, 16)).convert("RGB").save(file, "PNG")
    return file.getvalue()


def _serve(bench: Bench) -> Started:
    run = bench.finished(bench.run) / RUN_NAME
    return bench.start(
        [sys.executable, "-m", "edgeopt", "serve", str(run), "--plugin", str(TINY_PLUGIN), "--port", "0"]
    )


def _at_address(started: Started) -> _Server:
    assert started.process.stdout
    line = started.process.stdout.readline()
    address = next((word for word in line.replace(",", "").split() if word.startswith("http")), "")
    return _Server(started, urlsplit(address).port or 0)


def kills_serve(bench: Bench) -> Iterator[Ending]:
    """While it starts, and while it answers: the server, all its processes, or the file's process."""
    started, begin = _serve(bench), time.perf_counter()
    right = _at_address(started).answered()
    length = time.perf_counter() - begin
    started.kill_all()
    whom = cycle(("parent", "all", "worker"))
    for number in range(round(_SHARES["serve"] * bench.kills)):
        started = _serve(bench)
        if number % 2:
            time.sleep(bench.random.uniform(0.0, length))
            yield _served(started, next(whom), None, right)
        else:
            yield _served(started, next(whom), _at_address(started), right, bench.random.uniform(0.0, 0.3))


def _served(started: Started, whom: str, server: _Server | None, right: object, after_s: float = 0.0) -> Ending:
    """Kills a server, or its file's process alone, and says what was wrong about the answers before, meanwhile and after."""
    answers: list[object] = []
    if server is not None:
        answers.append(server.answered())
        asking = threading.Thread(target=lambda: answers.extend(_answers(server)))
        asking.start()
        time.sleep(after_s)
        if whom == "worker":
            for process in started.processes():
                if process != started.process.pid:
                    os.kill(process, signal.SIGKILL)
            answers.insert(0, server.answered())
    if whom == "all":
        started.kill_all()
    started.process.kill()
    started.process.wait()
    wrong = []
    if server is not None:
        asking.join()
        if answers[0] is None:
            wrong.append("it did not answer")
    if any(answer not in (None, right) for answer in answers):
        wrong.append("another answer")
    if left := started.left_over():
        wrong.append(f"{left} processes are left")
    if "Traceback" in started.said():
        wrong.append("a traceback")
    return Ending(How.KILLED, wrong=tuple(wrong), went_on=int(server is not None and not wrong))


def _answers(server: _Server) -> Iterator[object]:
    """What it answers until it answers no more, twenty times at most."""
    for _ in range(20):
        yield server.answer()


# ---- stopped, hanging, without memory, at another time --------------------------------------------------------------


def stops(bench: Bench) -> Iterator[Ending]:
    """For longer than a file may be silent: the parent alone, which then finds answers and a limit that is over; and all."""
    patience = max(2.0, bench.stop_s / 3)
    recipe = bench.written("stopped.toml", RECIPE.replace("measure = {", f"measure = {{ timeout_s = {patience:g},"))
    work = Work(("run", str(recipe)), (RUN_NAME,))
    for whom in ("parent", "all"):
        for share in (0.4, 0.8):
            out = bench.new_out()
            started = bench.start(work, out)
            started.wait(share * bench.seconds(work))
            processes = [started.process.pid] if whom == "parent" else started.processes()
            stop(processes, bench.stop_s)
            yield bench.judged(work, out, started, started.wait(), goes_on=True)


def hangs(bench: Bench) -> Iterator[Ending]:
    """A file that never opens, that never answers, and that stops answering while it is timed."""
    caught = bench.folder / "caught"
    plugin = bench.written("hanging.py", _HANGING.format(tiny=str(TINY_PLUGIN), caught=str(caught)))
    text = RECIPE.replace('use = "npz"', 'use = "hanging"').replace("measure = {", "measure = { timeout_s = 5,")
    work = Work(("run", str(bench.written("hanging.toml", text))), (RUN_NAME,), (TINY_PLUGIN, plugin))
    for where in ("open", "first call", "call"):
        bench.finished(work)
        out = bench.new_out()
        caught.write_text(where)
        started = bench.start(work, out)
        code = started.wait()
        caught.unlink()
        yield bench.judged(work, out, started, code, goes_on=True)


def memory(bench: Bench) -> Iterator[Ending]:
    """Address space for each process: from what Python itself needs to what is enough."""
    for work, limits in ((bench.run, (120, 200, 300, 450, 700, 1000, 2000, 3000)), (bench.tune, (300, 700, 2000))):
        for megabytes in limits:
            out = bench.new_out()
            limit = megabytes * _MEGABYTE
            started = bench.start(
                work, out, before=lambda most=limit: resource.setrlimit(resource.RLIMIT_AS, (most, most))
            )
            yield bench.judged(work, out, started, started.wait(), goes_on=megabytes == 300)


def clock(bench: Bench) -> Iterator[Ending]:
    """Forwards and backwards by a day, at random instants; with `--fresh` too, which tells by the clock what is old."""
    jumped = bench.folder / "clock"
    folder = bench.folder / "sitecustomize"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_CLOCK)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    environment = {"PYTHONPATH": path, "EDGEOPT_FAULTS_CLOCK": str(jumped)}
    fresh = Work((*bench.run.command, "--fresh"), (RUN_NAME,))
    for work, jumps in ((bench.run, ((1, 0), (-1, 0))), (fresh, ((1, 0), (-1, 0), (1, -1))), (bench.tune, ((1, -1),))):
        for days in jumps:
            out = bench.new_out()
            shutil.copytree(bench.finished(bench.run), out)
            shutil.rmtree(out / RUN_NAME if work is not bench.run else out / ".store")
            started = bench.start(work, out, environment)
            for jump in days:
                started.wait(bench.random.uniform(0.1, 0.4) * bench.seconds(work))
                pending = jumped.with_suffix(".new")
                pending.write_text(str(jump * _DAY_S))
                pending.replace(jumped)
            yield bench.judged(work, out, started, started.wait(), goes_on=True)
            jumped.unlink()


FAULTS = (
    Fault("kills, run", "`run` killed at random instants: the parent, all its processes, or one worker", kills_run),
    Fault("kills, tune", "`tune` killed in the same ways", kills_tune),
    Fault(
        "kills, serve",
        "`serve` killed while it starts and while it answers: the server, all, or a file's process",
        kills_serve,
    ),
    Fault("stopped", "the parent, or all processes, stopped for three times as long as a file may be silent", stops),
    Fault("hanging", "a file that never opens, never answers, or stops answering", hangs),
    Fault("memory", "a limit of address space for each process, from 120 MB up", memory),
    Fault("clock", "a clock that jumps by a day, forwards and backwards", clock),
)
