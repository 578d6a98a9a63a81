"""A process that does stages of a run: `python -m edgeopt.pipeline.job JOB.json`.

It says what happens as JSON lines on its standard output; what libraries print goes to standard error, which the parent
writes to the run's log. It ends when its standard input ends, so that no worker outlives a killed run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgeopt.data.found import read_found, write_found
from edgeopt.errors import UserError
from edgeopt.json_values import from_text
from edgeopt.pipeline import machines
from edgeopt.plugins.handed import hand_over, handed
from edgeopt.recipe.plan import Plan
from edgeopt.recipe.stage import Stage, StageKind
from edgeopt.tracking.tracked import TrackedRun
from edgeopt.workers.process import Events, die_with_parent, leave, work
from edgeopt.workers.store import Result, Store

if TYPE_CHECKING:
    from edgeopt.pipeline.stages import Workbench


@dataclass(frozen=True)
class StagesJob:
    """What a worker is to do: the `stages` of the plan that `plan`, a file, holds.

    `found` is the file with what was found of the data set, where the data stage is among them. `failures` says of each
    file that could not be made why, and `away` of each device that could not be used. `pauses` says of stages after
    how many epochs they pause.
    """

    module: ClassVar[str] = "edgeopt.pipeline.job"

    plan: Path
    store: Path
    not_before: float
    stages: tuple[str, ...]
    found: Path | None = None
    failures: Mapping[str, str] = field(default_factory=dict)
    away: Mapping[str, str] = field(default_factory=dict)
    log: str = ""
    tracked: TrackedRun | None = None
    pauses: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class HandedPlan:
    """A finished plan in the files that all workers of a run read, so that none of them plans or looks at the data set
    again.
    """

    plan: Plan
    store: Store
    file: Path
    found: Path
    tracked: TrackedRun | None = None
    pauses: Mapping[str, int] = field(default_factory=dict)

    def job(
        self,
        stages: Iterable[Stage],
        log: str,
        failures: Mapping[str, str] | None = None,
        away: Mapping[str, str] | None = None,
    ) -> StagesJob:
        """What a worker is told, to do `stages`."""
        chosen = tuple(stages)
        reads_data = self.plan.found is not None and any(stage.kind is StageKind.DATA for stage in chosen)
        return StagesJob(
            self.file,
            self.store.root,
            self.store.not_before,
            tuple(stage.name for stage in chosen),
            self.found if reads_data else None,
            failures or {},
            away or {},
            log,
            self.tracked,
            self.pauses,
        )


def hand_over_plan(
    plan: Plan,
    store: Store,
    folder: Path,
    tracked: TrackedRun | None = None,
    pauses: Mapping[str, int] | None = None,
) -> HandedPlan:
    """Writes a plan for workers into `folder`, and what was found of the data set where that is still to be read.

    `tracked` is the run in the trackers that follow it; `pauses` says of stages after how many epochs they pause.
    """
    made = HandedPlan(plan, store, folder / "plan.pickle", folder / "found.pickle", tracked, pauses or {})
    hand_over(replace(plan, found=None), made.file, plan.registry)
    if plan.found is not None and store.find(plan.stages["data"].key) is None:
        write_found(plan.found, made.found)
    return made


def read_plan(file: Path) -> Plan:
    """The plan that `hand_over_plan` wrote."""
    plan = handed(Plan, file)
    machines.forget_ranks(plan)
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
        if stage.kind is StageKind.PASS and stage.index >= plan.baseline_passes:
            want(plan.float_stage)  # a pass may hold its network against the float one
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


def main(events: Events) -> None:
    """Does the job that the command line names."""
    job = from_text(StagesJob, Path(sys.argv[1]).read_text())
    die_with_parent()
    do_stages(bench_of(job, events), job.stages, events)


def bench_of(job: StagesJob, events: Events) -> Workbench:
    """The workbench for a job's stages."""
    plan = read_plan(job.plan)
    from edgeopt.pipeline.stages import Workbench  # numpy and, with a stage, torch

    store = Store(job.store, job.not_before, trusts=True)
    found = read_found(job.found) if job.found else None
    bench = Workbench(
        plan,
        store,
        events,
        not machines.is_helper(plan),
        failures=job.failures,
        away=job.away,
        log=job.log,
        found=found,
        tracked=job.tracked,
        pauses=job.pauses,
    )
    if machines.is_other_machine(plan):
        bench.first = machines.FirstMachine(machines.beat_file(plan, store.root))
    return bench


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


if __name__ == "__main__":
    leave(work(main))
