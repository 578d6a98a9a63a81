"""How far one study goes: a thousand simulated nodes and a hundred thousand trials of made-up work.

The study is real: `edgeopt tune` with `workers = "ray"`, its proposals, its order, a thread and a request for each trial
on its way, `trials.jsonl`, the journal, the best so far, the page at its end. Made up are the cluster, whose nodes are
entries of a list with a clock of their own, and the trials: each reads its request, as a worker does, keeps a result in
the store, and answers with figures that follow from its values. The recipe as it stands and the winner are not run.

Seconds of the study's process are those of its processor, without what nodes do in it; its clock runs on by them while
nodes work, and jumps to the next end while it waits. So the share of the time for which nodes are busy comes out, too.

    python benchmarks/scale.py [--only grow busy …] [--trials 100000] [--nodes 1000]
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import math
import os
import random
import resource
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bars import Bar, finish
from rich.console import Console
from rich.table import Table

from edgeopt.files import write_aside
from edgeopt.fingerprint import digest
from edgeopt.json_values import from_values, to_values
from edgeopt.pipeline.runner import store_of
from edgeopt.recipe.tune import Sampler
from edgeopt.tuning import study as studies
from edgeopt.tuning.attempt import Attempts
from edgeopt.tuning.crew import SideBySide
from edgeopt.tuning.goals import Figures, Reference, missed
from edgeopt.tuning.journal import FILE as JOURNAL
from edgeopt.tuning.order import Proposal
from edgeopt.tuning.request import TuneRequest
from edgeopt.tuning.result import TuneResult
from edgeopt.tuning.study import tune
from edgeopt.tuning.trials import FILE, Ending, Trial
from edgeopt.tuning.worker import TrialJob, TrialRequest
from edgeopt.workers.places import Errand
from edgeopt.workers.pool import Listener

ROOT = Path(__file__).parent.parent
TINY_PLUGIN = ROOT / "tests" / "tiny_plugin.py"
RECIPE = """\
schema = 1
name = "scale"
dataset = { use = "stripes", image_size = 16 }
model = { use = "linear" }
trainer = { threads = 1 }
measure = { threads = 1, warmup = 1, runs = 5, rounds = 1 }

[[passes]]
use = "fit-stripes"
epochs = 6

[[passes]]
use = "round-weights"
steps = 64

[[exports]]
use = "npz"

[tune]
goal = { accuracy = 0.8 }
minimize = MINIMIZE
at_once = AT_ONCE
workers = "ray"
sampler = "SAMPLER"

[tune.ray]
cpus = 1
HALVING
[tune.space]
"passes.0.epochs" = { low = 1, high = 1000 }
"passes.0.seconds" = { low = 0.0, high = 1.0 }
"passes.round-weights" = { optional = true }
"passes.round-weights.steps" = { low = 1, high = 4096, log = true }
"dataset.image_size" = [8, 16, 24, 32]
"""
MARKS = (4_000, 10_000, 100_000)  # where as many trials have ended as are on their way, and more
LAST = 0.1  # of the trials before a mark, over which seconds of a trial are taken
TOGETHER = 64  # trials whose work is done at once: a switch from thread to thread waits for what else the machine does
SPREAD = (0.5, 1.5)  # of the length of a trial, around their mean


def answer(request: TrialRequest) -> Trial:
    """What a made-up trial reaches: a few parameters decide, and few of the recipes reach the goal."""
    proposal, values = request.proposal, request.proposal.values
    steps = float(str(values.get("passes.round-weights.steps", 8192)))
    epochs, side = float(str(values["passes.0.epochs"])), float(str(values["dataset.image_size"]))
    accuracy = 1 - 0.4 * math.exp(-epochs / 200) - 0.3 / math.sqrt(steps) - 1.5 / side
    size = 1000 * side + 400 * math.log2(steps + 1) + 2 * epochs
    figures = Figures(
        bytes=round(size),
        latency_ms=size / 5e4 + float(str(values["passes.0.seconds"])),
        memory_bytes=40_000_000,
        agreement=1.0,
        macs=768,
        delegated_share=1.0,
        scores={"accuracy": accuracy, "top5": 1.0},
    )
    attempts = request.attempts
    trial = Trial(
        number=proposal.number,
        values=values,
        ending=Ending.DONE,
        figures=figures,
        objectives=tuple(figures.of(name) for name in attempts.minimize),
        missed=missed(attempts.goal, figures, request.reference, attempts.kinds),
        seconds=1.0,
        folder=attempts.name_of(proposal.number),
    )
    if attempts.halving is None:
        return trial
    rungs = tuple(accuracy * share for share in attempts.halving.rungs)
    return Trial(**{**vars(trial), "rungs": rungs, "costs": trial.objectives})


class Nodes:
    """A cluster of `count` nodes, each of which makes one trial at a time, of about `length_s` seconds of their own clock.

    It is to a study what a cluster of Ray is. The work of a trial is done when it is let go.
    """

    told = "on a node that is made up"

    def __init__(self, count: int, length_s: float) -> None:
        self.count, self.length_s = count, length_s
        self.now_s = 0.0
        self.made = Cost()
        self.worked: list[tuple[float, float]] = []  # from when to when, of each trial
        self._waits: deque[int] = deque()
        self._at_work: list[tuple[float, int]] = []  # by when they end
        self._may_go: dict[int, threading.Event] = {}
        self._lock = threading.Lock()

    def take(self, number: int) -> None:
        """A trial is handed out; it waits for a node that is free."""
        self._may_go[number] = threading.Event()
        self._waits.append(number)

    def end_one(self, study_s: float) -> int:
        """The trial that ends first, behind `study_s` for which the study worked since it last waited for one."""
        self.now_s += study_s
        while self._waits and len(self._at_work) < self.count:
            number = self._waits.popleft()
            end_s = self.now_s + self.length_s * random.Random(number).uniform(*SPREAD)
            self.worked.append((self.now_s, end_s))
            heapq.heappush(self._at_work, (end_s, number))
        end_s, number = heapq.heappop(self._at_work)
        self.now_s = max(self.now_s, end_s)
        return number

    def let_go(self, number: int) -> int:
        """Has the work of a trial done, and that of those that end next; returns how many that are."""
        going = [number, *(each for _, each in heapq.nsmallest(TOGETHER - 1, self._at_work))]
        going = [each for each in going if each in self._may_go]
        for each in going:
            self._may_go.pop(each).set()
        return len(going)

    @property
    def busy_share(self) -> float:
        """Of the time of all nodes until the last trial began, that for which they worked."""
        until_s, _ = self.worked[-1]
        return sum(min(end_s, until_s) - begin_s for begin_s, end_s in self.worked) / max(1e-9, self.count * until_s)

    def do(self, errand: Errand, listener: Listener) -> None:  # noqa: ARG002 - only its end comes from afar
        assert isinstance(errand.job, TrialJob)
        if (event := self._may_go.get(int(errand.job.request.name.partition(".")[0]))) is not None:
            event.wait()  # else it may go already
        before = Cost.of_thread()
        request = from_values(TrialRequest, json.loads(errand.job.request.read_text(encoding="utf-8")))
        trial = json.dumps(to_values(answer(request)))
        write_aside(errand.job.outcome, trial)
        store_of(request.attempts.out).compute(digest([trial]), partial(_keep, trial), "a made-up result")
        with self._lock:
            self.made += Cost.of_thread() - before

    def on_every_node(self, ask: Callable[..., Any], *arguments: Any) -> Iterator[tuple[str, Any]]:
        """What one node says, in the name of all."""
        said = ask(*arguments)
        yield from ((f"node-{number}", said) for number in range(self.count))

    def end(self) -> None:
        """Nobody is left who could be ended."""


def _keep(text: str, folder: Path) -> dict[str, Any]:
    (folder / "result.txt").write_text(text)
    return {}


@dataclass(frozen=True)
class Cost:
    """Seconds of a processor, and bytes that were read from files and written to them."""

    seconds: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0

    @classmethod
    def of_thread(cls) -> Cost:
        """Of this thread, until now."""
        return cls(time.thread_time(), *_moved("thread-self"))

    @classmethod
    def of_process(cls) -> Cost:
        """Of this process, until now."""
        return cls(time.process_time(), *_moved("self"))

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds,
            self.read_bytes + other.read_bytes,
            self.written_bytes + other.written_bytes,
        )

    def __sub__(self, other: Cost) -> Cost:
        return self + Cost(-other.seconds, -other.read_bytes, -other.written_bytes)


def _moved(process: str) -> tuple[int, int]:
    lines = dict(line.split(": ") for line in Path(f"/proc/{process}/io").read_text().splitlines())
    return int(lines["rchar"]), int(lines["wchar"])


@dataclass(frozen=True)
class Mark:
    """How far a study is: trials, what its own process has cost, the clock of this machine, memory and files."""

    trials: int
    cost: Cost
    wall_s: float
    memory_bytes: int
    file_bytes: Mapping[str, int]


class Watched(SideBySide):
    """The crew of a study whose trials are made by nodes that are made up; it notes how far the study is at `marks`."""

    def __init__(self, nodes: Nodes, marks: Sequence[int], attempts: Attempts, *others: Any) -> None:
        super().__init__(attempts, *others)
        self.noted: list[Mark] = []
        self._early: dict[int, Trial] = {}  # their work is done, and their time has not come
        self._nodes, self._marks, self._folder = nodes, marks, attempts.folder
        self._count, self._waited_s = 0, self._own_s()
        self.first_s = self.last_s = time.perf_counter()  # when the first trial was handed out, and the last one ended

    def _own_s(self) -> float:
        """Seconds of the study's process, without those of nodes."""
        return time.process_time() - self._nodes.made.seconds

    def __exit__(self, *raised: Any) -> None:
        self.note()
        super().__exit__(*raised)

    def start(self, proposal: Proposal) -> None:
        if not self.noted:
            self.first_s = time.perf_counter()
            self.note()
        self._nodes.take(proposal.number)
        super().start(proposal)

    def ended(self) -> Trial:
        if self._count in self._marks:
            self.note()
        now_s = self._own_s()
        number = self._nodes.end_one(now_s - self._waited_s)
        self._waited_s = now_s
        if number not in self._early:
            made = [super(Watched, self).ended() for _ in range(self._nodes.let_go(number))]
            self._early |= {each.number: each for each in made}
        trial = self._early.pop(number)
        self._count += 1
        self.last_s = time.perf_counter()
        return trial

    def note(self) -> None:
        """How far the study is now."""
        print(f"  {self._count:,} trials, {self._own_s():.0f} s of a processor", file=sys.stderr)
        files = {each: (self._folder / each).stat().st_size for each in (FILE, JOURNAL)}
        cost = Cost.of_process() - self._nodes.made
        self.noted.append(Mark(self._count, cost, time.perf_counter() - self.first_s, _memory_bytes(), files))


def _memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@dataclass(frozen=True)
class Asked:
    """A study on nodes that are made up."""

    nodes: int
    at_once: int
    sampler: Sampler = Sampler.RANDOM
    minimize: tuple[str, ...] = ("bytes",)
    halving: bool = False
    length_s: float = 60.0

    @property
    def told(self) -> str:
        """In words."""
        least = " and ".join(self.minimize)
        return f"least {least}{', halving' * self.halving}, {self.at_once:,} at once on {self.nodes:,} nodes"

    def recipe(self, folder: Path) -> Path:
        """The recipe, written into a folder."""
        file = folder / "recipe.toml"
        text = RECIPE.replace("AT_ONCE", str(self.at_once)).replace("SAMPLER", self.sampler)
        text = text.replace("HALVING", "\n[tune.halving]\n" if self.halving else "")
        file.write_text(text.replace("MINIMIZE", json.dumps(self.minimize)))
        return file


@dataclass(frozen=True)
class Simulated:
    """A study as it was made: its trials, the nodes, the marks, and the seconds of the page and what else ends it."""

    result: TuneResult
    nodes: Nodes
    marks: tuple[Mark, ...]
    begin_s: float
    end_s: float


def simulate(asked: Asked, folder: Path, trials: int, marks: Sequence[int] = (), *, page: bool = True) -> Simulated:
    """Makes a study of so many trials in a folder, or goes on with it; without its `page` where nobody asks for that."""
    nodes = Nodes(asked.nodes, asked.length_s)
    crews: list[Watched] = []

    def crew(*given: Any) -> Watched:
        crews.append(Watched(nodes, marks, *given))
        return crews[0]

    @contextlib.contextmanager
    def cluster(*_: Any) -> Iterator[Nodes]:
        yield nodes

    request = TuneRequest(asked.recipe(folder), out=folder / "runs", plugin_files=(TINY_PLUGIN,), trials=trials)
    with (
        contextlib.ExitStack() as without,
        Path(os.devnull).open("w") as nowhere,
        patch.object(studies, "on_ray", cluster),
        patch.object(studies, "SideBySide", crew),
        patch.object(Attempts, "reference", lambda _: Reference({"accuracy": 1.0}, {"npz": 50_000}, {"npz": 1.0})),
        patch("edgeopt.tuning.study._Tuning._on_test", lambda *_: None),
    ):
        if not page:
            without.enter_context(patch("edgeopt.tuning.page.render_page", lambda _: ""))
            without.enter_context(patch("edgeopt.tuning.proposals.Proposer.importances", lambda _: ()))
        start = time.perf_counter()
        result = tune(request, Console(file=nowhere, width=120))
        end = time.perf_counter()
    return Simulated(result, nodes, tuple(crews[0].noted), crews[0].first_s - start, end - crews[0].last_s)


# ---- what is looked at ---------------------------------------------------------------------------------------------


def grow(asked: Asked, trials: int) -> Iterator[Bar]:
    """A study of many trials, as it grows: what a trial costs the study's process, and how large files become."""
    ends = [*(each for each in MARKS if 2 * asked.at_once < each < trials), trials]
    table = Table("trials", "ms of a processor", "ms", "trials a second", "MB of memory", *(f"MB of {each}" for each in (FILE, JOURNAL)),
                  "bytes written", "bytes read", title=f"{asked.sampler}, {asked.told}: each trial, and the whole")  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        whole = trials + asked.at_once  # so that trials are still proposed at the last mark
        made = simulate(asked, folder, whole, [each for end in ends for each in (round((1 - LAST) * end), end)])
        noted = {each.trials: each for each in made.marks}
        seconds = []
        for end in ends:
            before, after = noted[round((1 - LAST) * end)], noted[end]
            count, cost = after.trials - before.trials, after.cost - before.cost
            seconds.append(cost.seconds / count)
            table.add_row(
                f"{end:,}",
                f"{1000 * seconds[-1]:.2f}",
                f"{1000 * (after.wall_s - before.wall_s) / count:.2f}",
                f"{1 / seconds[-1]:.0f}",
                f"{after.memory_bytes / 1e6:.0f}",
                *(f"{size / 1e6:.2f}" for size in after.file_bytes.values()),
                f"{cost.written_bytes / count:,.0f}",
                f"{cost.read_bytes / count:,.0f}",
            )
        Console(width=160).print(table)
        store = folder / "runs" / ".store"
        kept = [each.stat().st_size for each in store.rglob("*") if each.is_file()]
        print(f"{sum(kept) / 1e6:.1f} MB in {len(kept):,} files of the store, of one small result for each trial")
        print(f"the end, with its page: {made.end_s:.1f} s; page {_page_bytes(folder) / 1e6:.1f} MB")
        again = simulate(asked, folder, whole + 1, page=False)
        print(f"to go on with {whole:,} trials: {again.begin_s:.1f} s until the next one is handed out")
    name = f"{asked.sampler}, {asked.told}"
    yield Bar(f"{name}: a trial at {ends[-1]:,} against one at {ends[0]:,}", seconds[-1] / seconds[0], 1.5)
    yield Bar(f"{name}: seconds to go on, of each thousand trials", 1000 * again.begin_s / whole, 2.0)


def _page_bytes(folder: Path) -> int:
    return next((folder / "runs").glob("*/tune.html")).stat().st_size


def busy(nodes: int) -> Iterator[Bar]:
    """The share of their time for which nodes work, by how long a trial takes and how many are at once."""
    at_once = (nodes, 3 * nodes // 2, 2 * nodes)
    table = Table(
        "seconds of a trial", *(f"{each:,} at once" for each in at_once), title=f"share of {nodes:,} nodes at work"
    )
    shares = {}
    for length_s in (10.0, 60.0, 600.0):
        for each in at_once:
            with tempfile.TemporaryDirectory() as temporary:
                made = simulate(Asked(nodes, each, length_s=length_s), Path(temporary), 4 * nodes, page=False)
                shares[length_s, each] = made.nodes.busy_share
        table.add_row(f"{length_s:g}", *(f"{shares[length_s, each]:.0%}" for each in at_once))
    Console(width=120).print(table)
    yield Bar(
        "nodes at work with trials of a minute, twice as many at once", shares[60.0, at_once[-1]], 0.9, at_least=True
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Simulates what is asked for, and judges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["random", "tpe", "nsga2", "halving", "busy"], help="parts")
    parser.add_argument(
        "--trials", type=int, default=100_000, help="of the study that proposes at random; others have a tenth"
    )
    parser.add_argument("--nodes", type=int, default=1000)
    given = parser.parse_args(argv)
    few = max(1, given.trials // 10)
    at_once = 3 * given.nodes // 2
    parts: Mapping[str, Callable[[], Iterator[Bar]]] = {
        "random": lambda: grow(Asked(given.nodes, at_once), given.trials),
        "tpe": lambda: grow(Asked(given.nodes, at_once, Sampler.TPE), few),
        "nsga2": lambda: grow(Asked(given.nodes, at_once, Sampler.NSGA2, ("bytes", "latency_ms")), few),
        "halving": lambda: grow(Asked(given.nodes, at_once, halving=True), few),
        "busy": lambda: busy(given.nodes),
    }
    start = time.process_time()
    bars = [bar for part in given.only for bar in parts[part]()]
    print(f"{time.process_time() - start:.0f} s of a processor")
    finish(*bars)


if __name__ == "__main__":
    main()
