"""A process that does a part of a run: `python -m edgeopt.pipeline.job JOB.json`.

It says what happens as JSON lines on its standard output; what libraries print goes to standard error, which the parent
writes to the run's log. It ends when its standard input ends, so that no worker outlives a killed run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgeopt.arrays import Json
from edgeopt.errors import DataError, UserError
from edgeopt.json_values import from_text
from edgeopt.pipeline import machines
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.plan import Plan, Stage, make_plan
from edgeopt.recipe.read import Source, parse_recipe
from edgeopt.toml_lines import key_lines
from edgeopt.workers.process import Events, die_with_parent, requests_of_parent, work
from edgeopt.workers.store import Result, Store

if TYPE_CHECKING:
    from edgeopt.pipeline.stages import Workbench


@dataclass(frozen=True)
class Job:
    """What a worker is to do: some stages of a recipe, or `measure`, the number of a file to be timed on request.

    `keys` are the parent's keys of all stages. `failures` says of each file that could not be made why.
    """

    module: ClassVar[str] = "edgeopt.pipeline.job"

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

    def plan(self) -> Plan:
        """The plan that the parent made, made again; raises `DataError` when the data changed in between."""
        source = Source(self.source_file, self.source_text, key_lines(self.source_text))
        registry = load_registry(Path(file) for file in self.plugin_files)
        plan = make_plan(parse_recipe(self.recipe, source, self.overrides), registry, smoke=self.smoke)
        machines.forget_ranks(plan)
        changed = [name for name, key in self.keys.items() if plan.stages[name].key != key]
        if changed:
            raise DataError(
                f"data or plugins changed while the run was working (stage {changed[0]!r} has another key now)",
                hint="start the run again",
            )
        return plan


def missing_stages(plan: Plan, ends: Iterable[Stage], found: Callable[[Stage], Result | None]) -> list[Stage]:
    """The stages that must be made for `ends`, each after those it needs; what only a finished stage needs is not among
    them.
    """
    wanted: set[str] = set()

    def want(stage: Stage) -> None:
        if stage.name in wanted or found(stage):
            return
        for name in stage.needs:
            want(plan.stages[name])
        wanted.add(stage.name)

    for stage in ends:
        want(stage)
    return [stage for stage in plan.stages.values() if stage.name in wanted]


def trunk_jobs(plan: Plan, stages: Sequence[Stage]) -> list[list[Stage]]:
    """Stages by the process that does them: all in one, because importing torch and Lightning takes seconds.

    A distributed training gets a process for itself, because its helpers repeat the whole of their process's job.
    """
    trainer = plan.recipe.trainer
    is_distributed = trainer.devices not in (1, "auto") or trainer.num_nodes > 1
    return [[stage] for stage in stages] if is_distributed else [list(stages)] if stages else []


def job_of(plan: Plan, store: Store, plugin_files: Iterable[Path], stages: Iterable[Stage], log: str) -> Job:
    """What a worker is told, to do `stages` of a plan."""
    recipe = plan.recipe
    return Job(
        recipe=recipe.to_json(),
        source_file=recipe.source.file,
        source_text=recipe.source.text,
        overrides=tuple(recipe.source.overrides.values()),
        plugin_files=tuple(str(file) for file in plugin_files),
        smoke=plan.smoke,
        store=str(store.root),
        not_before=store.not_before,
        keys={stage.name: stage.key for stage in plan.stages.values()},
        stages=tuple(stage.name for stage in stages),
        log=log,
    )


def main(events: Events) -> None:
    """Does the job that the command line names."""
    job = from_text(Job, Path(sys.argv[1]).read_text())
    if job.measure is not None:
        _measure(job, job.measure, events)
    else:
        die_with_parent()
        _stages(job, events)


def _stages(job: Job, events: Events) -> None:
    """Does the job's stages in order."""
    plan = job.plan()
    is_main = not machines.is_helper(plan)
    from edgeopt.pipeline.stages import Workbench  # numpy and, with a stage, torch

    store = Store(Path(job.store), job.not_before)
    bench = Workbench(plan, store, events, is_main, job.failures, job.log)
    if machines.is_other_machine(plan):
        bench.first = machines.FirstMachine(machines.beat_file(plan, store.root))
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
    """Times one file on request, see `edgeopt.measure.latency`."""
    from edgeopt.measure.answers import feeder
    from edgeopt.measure.latency import serve
    from edgeopt.networks.saved import load_outline
    from edgeopt.pipeline.stages import Workbench

    plan = job.plan()
    bench = Workbench(plan, Store(Path(job.store), job.not_before), events)
    planned = plan.exports[number]
    settings = plan.measure
    outline = load_outline(bench.result(planned.program_stage).folder)
    test = bench.test()
    pixels = test.pixels([image % len(test) for image in range(settings.batch_size)])
    feed = feeder(bench.results.export(planned).exported.input.holds, outline.preprocessing)
    serve(
        exporter=planned.use.plugin,
        file=bench.results.file(planned),
        batch=feed(pixels),
        threads=settings.threads,
        warmup=settings.warmup,
        requests=requests_of_parent(),
        answer=events.send,
    )


if __name__ == "__main__":
    sys.exit(work(main))
