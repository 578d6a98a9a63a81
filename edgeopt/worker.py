"""A process that does a part of a run: `python -m edgeopt.worker JOB.json`.

It says what happens as JSON lines on its standard output; what libraries print goes to standard error, which the parent
writes to the run's log. It ends when its standard input ends, so that no worker outlives a killed run.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, ClassVar

from edgeopt.errors import DataError, UserError
from edgeopt.plan import Plan, make_plan
from edgeopt.progress import Bar
from edgeopt.recipe import Source, key_lines, parse_recipe
from edgeopt.registry import load_registry
from edgeopt.store import Store
from edgeopt.types import Json

if TYPE_CHECKING:
    from edgeopt.stages import Workbench

_INTERVAL_SECONDS = 0.1


@dataclass(frozen=True)
class Job:
    """What a worker is to do: some stages of a recipe, or `measure`, the number of a file to be timed on request.

    `keys` are the parent's keys of all stages. `failures` says of each file that could not be made why.
    """

    module: ClassVar[str] = "edgeopt.worker"

    recipe: dict[str, Json]
    source_file: str | None
    source_text: str
    overrides: tuple[str, ...]
    plugin_files: tuple[str, ...]
    smoke: bool
    store: str
    not_before: float
    keys: dict[str, str]
    stages: tuple[str, ...] = ()
    measure: int | None = None
    failures: Mapping[str, str] = field(default_factory=dict)
    log: str = ""

    def to_json(self) -> str:
        """The job as text for a file."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Job:
        """Reads what `to_json` wrote."""
        return Job.from_values(json.loads(text))

    @staticmethod
    def from_values(values: dict[str, Json]) -> Job:
        """The job of its fields as JSON values."""
        return Job(**values | {name: tuple(values[name]) for name in ("overrides", "plugin_files", "stages")})

    def plan(self) -> Plan:
        """The plan that the parent made, made again; raises `DataError` when the data changed in between."""
        source = Source(self.source_file, self.source_text, key_lines(self.source_text))
        registry = load_registry(Path(file) for file in self.plugin_files)
        plan = make_plan(parse_recipe(self.recipe, source, self.overrides), registry, smoke=self.smoke)
        changed = [name for name, key in self.keys.items() if plan.stages[name].key != key]
        if changed:
            raise DataError(
                f"data or plugins changed while the run was working (stage {changed[0]!r} has another key now)",
                hint="start the run again",
            )
        return plan


class Events:
    """Writes events, one JSON object a line; several threads may."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, event: dict[str, Json]) -> None:
        """Writes one event at once."""
        with self._lock:
            self._stream.write(json.dumps(event) + "\n")
            self._stream.flush()

    @contextmanager
    def bar(self, label: str, total: float) -> Iterator[Bar]:
        """A progress bar that the parent draws."""
        self.send({"event": "bar", "label": label, "total": total})
        bar = _EventBar(self)
        yield bar
        bar.flush()
        self.send({"event": "bar-end"})


class _EventBar:
    """Adds up steps and sends them a few times a second."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._steps = 0.0
        self._text: str | None = None
        self._sent = 0.0

    def advance(self, steps: float = 1) -> None:
        self._steps += steps
        if time.monotonic() - self._sent > _INTERVAL_SECONDS:
            self.flush()

    def say(self, text: str) -> None:
        self._text = text

    def flush(self) -> None:
        """Sends what has not been sent."""
        self._events.send({"event": "advance", "steps": self._steps, "text": self._text})
        self._steps, self._sent = 0.0, time.monotonic()


def main(events: Events) -> None:
    """Does the job that the command line names."""
    job = Job.from_json(Path(sys.argv[1]).read_text())
    is_helper = any(os.environ.get(rank, "0") != "0" for rank in ("LOCAL_RANK", "NODE_RANK"))
    if job.measure is not None:
        _measure(job, job.measure, events)
    else:
        die_with_parent()
        _stages(job, events, is_main=not is_helper)


def work(main: Callable[[Events], None]) -> int:
    """Runs a worker's `main`; tells the parent what went wrong, and returns the exit code."""
    events = Events(_own_output())
    try:
        main(events)
    except UserError as error:
        events.send(
            {
                "event": "error",
                "type": type(error).__name__,
                "problems": [asdict(problem) for problem in error.problems],
            }
        )
        return int(error.exit_code)
    except KeyboardInterrupt:
        return 130
    except BaseException as error:
        traceback.print_exc()
        events.send({"event": "bug", "message": f"{type(error).__name__}: {error}"})
        return 1
    return 0


def _stages(job: Job, events: Events, *, is_main: bool) -> None:
    """Does the job's stages in order."""
    plan = job.plan()
    from edgeopt.stages import Workbench  # numpy and, with a stage, torch

    bench = Workbench(plan, Store(Path(job.store), job.not_before), events, is_main, job.failures, job.log)
    do_stages(bench, job.stages, events)


def do_stages(bench: Workbench, names: Iterable[str], events: Events) -> None:
    """Does stages in order; what a user did wrong is told with its place in the recipe."""
    for name in names:
        stage = bench.plan.stages[name]
        events.send({"event": "stage", "name": name, "label": stage.label})
        try:
            result = bench.do(stage)
        except UserError as error:
            raise error.at(partial(bench.plan.recipe.locate, *stage.recipe_key)) from error
        events.send({"event": "stage-end", "name": name, "seconds": result.seconds if result else 0.0})


def _measure(job: Job, number: int, events: Events) -> None:
    """Times one file on request, see `edgeopt.measure`."""
    from edgeopt.evaluate import feeder
    from edgeopt.measure import serve
    from edgeopt.stages import Workbench
    from edgeopt.states import load_outline

    plan = job.plan()
    bench = Workbench(plan, Store(Path(job.store), job.not_before), events)
    planned = plan.exports[number]
    settings = plan.measure
    outline = load_outline(bench.result(planned.program_stage).folder)
    test = bench.test()
    pixels = test.pixels([picture % len(test) for picture in range(settings.batch_size)])
    export = bench.result(planned.export_stage)
    feed = feeder(export.values["input"]["holds"], outline.preprocessing)
    serve(
        exporter=planned.use.plugin,
        file=bench.file(planned, export),
        batch=feed(pixels),
        threads=settings.threads,
        warmup=settings.warmup,
        requests=iter(sys.stdin.readline, ""),
        answer=events.send,
    )


def _own_output() -> IO[str]:
    """A stream to the parent that libraries cannot write to: they get standard error instead."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def die_with_parent(leave: Callable[[int], None] = os._exit) -> None:
    """Ends this process when its standard input ends, which it does when the parent dies, however it dies."""

    def watch() -> None:
        while os.read(0, 1024):  # not sys.stdin, whose lock a thread may not hold when Python ends
            pass
        leave(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(work(main))
