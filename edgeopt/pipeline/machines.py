"""Several machines on one run: which one this is, and whether the first one is still at work.

Every machine beats in a file of the store that all of them share. The others wait for what the first makes only while
it beats, and take over the time before which results do not count. The first begins a training when all others are
there, because one that never comes would hold it for half an hour without a word.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edgeopt.errors import TrainingError
from edgeopt.files import write_aside
from edgeopt.recipe.plan import Plan
from edgeopt.recipe.stage import Stage, StageKind

_RANKS = ("NODE_RANK", "GROUP_RANK")
_BEAT_S = 5.0
_LOOK_S = 0.5
_SILENCE_S = 180.0  # a shared disk shows a change late, and a machine may be busy
_SHOWN_S = 120.0  # until the report of a run that has finished is seen on a shared disk
_START_S = 600.0  # that another machine may take to begin


def is_other_machine(plan: Plan) -> bool:
    """Whether this is another machine than the first of a distributed training, which trains along and leaves the rest
    to the first.

    Clusters set ranks for whatever they start: they count only where the recipe asks for several machines.
    """
    return plan.recipe.trainer.num_nodes > 1 and number_of_this() != 0


def forget_ranks(plan: Plan) -> None:
    """Takes the ranks of a cluster out of this process's environment where the recipe asks for one machine: Lightning
    reads them too.
    """
    if plan.recipe.trainer.num_nodes == 1:
        for name in _RANKS:
            os.environ.pop(name, None)


def is_helper(plan: Plan) -> bool:
    """Whether this process trains along with another one, of this machine or of the first."""
    return is_other_machine(plan) or os.environ.get("LOCAL_RANK", "0") != "0"


def beat_file(plan: Plan, root: Path, number: int = 0) -> Path:
    """Where machine `number` of a plan's run beats, in a store at `root`; the first one is 0."""
    key = plan.stages["report"].key
    return root / "machines" / (f"{key}-{number}.json" if number else f"{key}.json")


def number_of_this() -> int:
    """Which of the machines this is, as a cluster or the user says; the first one is 0.

    Raises `TrainingError` where that is no number.
    """
    said = os.environ.get("NODE_RANK", "0")
    if not said.isdecimal():
        hint = "set it to 0 on the first machine, to 1 on the next, and so on"
        raise TrainingError(f"NODE_RANK is {said!r}, which is not the number of a machine", hint=hint)
    return int(said)


def share(plan: Plan, stages: Iterable[Stage]) -> bool:
    """Whether this is the first of several machines, and a training that they share is among some stages."""
    if plan.recipe.trainer.num_nodes == 1 or is_other_machine(plan):
        return False
    return any(each.kind is StageKind.PASS and plan.passes[each.index].plugin.trains for each in stages)


def require_others(plan: Plan, root: Path, start_s: float = _START_S) -> None:
    """Waits until all other machines are at work.

    Raises `TrainingError` naming those that have not begun in `start_s`, or that have failed.
    """
    others = {number: beat_file(plan, root, number) for number in range(1, plan.recipe.trainer.num_nodes)}
    before = {number: _text(file) for number, file in others.items()}
    until = time.monotonic() + start_s
    while missing := [number for number, file in others.items() if _text(file) in ("", before[number])]:
        if time.monotonic() > until:
            raise TrainingError(
                f"of {plan.recipe.trainer.num_nodes} machines, {', '.join(f'number {each}' for each in missing)} "
                f"has not begun in {start_s:g} s",
                hint="start the same command there, with NODE_RANK set to that number and the same --out on a disk "
                "that all share; or set trainer.num_nodes to the machines that there are",
            )
        time.sleep(_LOOK_S)
    for number, file in others.items():
        if json.loads(_text(file))["state"] == "failed":
            raise TrainingError(f"machine {number} ended with an error", hint="see what it said, and start all again")


@contextmanager
def beating(file: Path, not_before: float, every_s: float = _BEAT_S) -> Iterator[None]:
    """Beats while the block works, and says in the end whether it failed."""
    run = uuid.uuid4().hex
    stop = threading.Event()

    def write(beat: int, state: str) -> None:
        values = {"run": run, "beat": beat, "state": state, "not_before": not_before}
        write_aside(file, json.dumps(values))

    def beat() -> None:
        count = 1
        while not stop.wait(every_s):
            write(count, "working")
            count += 1

    write(0, "working")
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    state = "failed"
    try:
        yield
        state = "finished"
    finally:
        stop.set()
        thread.join()
        write(-1, state)


@dataclass
class FirstMachine:
    """The first machine as another one sees it, by its file."""

    file: Path
    silence_s: float = _SILENCE_S
    start_s: float = _START_S
    shown_s: float = _SHOWN_S
    _before: str = field(init=False)
    _last: str = field(init=False, default="")
    _changed: float = field(init=False)

    def __post_init__(self) -> None:
        self._before, self._changed = self._read(), time.monotonic()

    def not_before(self, look_every_s: float = 0.5) -> float:
        """Waits until the first machine is at work; the time before which its results do not count.

        Raises `TrainingError` when it does not begin.
        """
        while (text := self._read()) == self._before or not text:
            if time.monotonic() - self._changed > self.start_s:
                raise TrainingError(
                    f"the first machine has not begun in {self.start_s:g} s",
                    hint="start the same command there, with NODE_RANK=0 and the same --out on a disk that both share",
                )
            time.sleep(look_every_s)
        self._last, self._changed = text, time.monotonic()
        return float(json.loads(text)["not_before"])

    def require_work(self) -> None:
        """Raises `TrainingError` when the first machine has failed, or has not beaten for long."""
        text = self._read()
        if text != self._last:
            self._last, self._changed = text, time.monotonic()
        state = json.loads(text)["state"] if text else ""
        if state == "failed":
            raise TrainingError("the first machine ended with an error", hint="see what it said, and start all again")
        if state == "finished" and time.monotonic() - self._changed > self.shown_s:
            raise TrainingError("the first machine has finished, and some of its files failed", hint="see its report")
        if time.monotonic() - self._changed > self.silence_s and state != "finished":
            raise TrainingError(
                f"the first machine has not been heard of for {self.silence_s:g} s", hint="start all machines again"
            )

    def _read(self) -> str:
        return _text(self.file)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
