"""Runs a plan: looks results up, lets workers make what is missing, and ends with a report.

This process imports nothing heavy, so an unchanged recipe runs again in about a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.cores import usable_cores
from edgeopt.errors import DeviceError, EdgeoptError, ExportError, StorageError, UserError, WorkerError, in_a_line
from edgeopt.files import storage_errors
from edgeopt.pipeline import lock, machines
from edgeopt.pipeline.folder import RunFolder, fill
from edgeopt.pipeline.job import HandedPlan, StagesJob, hand_over_plan, missing_stages, trunk_jobs
from edgeopt.pipeline.measuring import Measuring
from edgeopt.pipeline.pauses import pauses_of
from edgeopt.pipeline.request import Beside, RunRequest, RunResult
from edgeopt.pipeline.results import Results
from edgeopt.pipeline.untrained import require_trained
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.judged import judged
from edgeopt.recipe.own_plugins import own_plugin_files
from edgeopt.recipe.plan import Plan, make_plan
from edgeopt.recipe.read import Recipe, parse_recipe, read_recipe
from edgeopt.recipe.stage import PlannedExport, Stage, StageKind
from edgeopt.tracking.tracked import TrackedRun
from edgeopt.tracking.trackers import Identity
from edgeopt.types import TORCH
from edgeopt.workers.bucket import Bucket
from edgeopt.workers.holders import at_work
from edgeopt.workers.launch import Nursery
from edgeopt.workers.neighbours import Neighbours
from edgeopt.workers.pool import Workers
from edgeopt.workers.store import Result, Store

if TYPE_CHECKING:  # rich is loaded when something is shown
    from rich.console import Console

    from edgeopt.pipeline.exchange import Exchange
    from edgeopt.workers.display import Display

_WAIT_SECONDS = 0.5
_TRACKED_KEY = 16  # characters
_SILENCE_LIMIT_S = 3 * 3600.0  # of an exporter, which may compile for long, or of a device that others use
_EXPORT_THREADS = 1  # of numeric libraries: exports run side by side, and interpret graphs more than they compute
_EXPORT_MODULES = ("edgeopt.pipeline.stages", "torch", "torch.export.pt2_archive")
_SIDE_BY_SIDE = 3  # exports, each with its program in memory
_SEVERAL = 2  # exports, from which on it is worth to import for all of them once
_TRUNK = (StageKind.DATA, StageKind.MODEL, StageKind.PASS, StageKind.PROGRAM)
_FIGURES = (StageKind.MEASURE, StageKind.DEVICE, StageKind.REPORT)  # a report never outlives its figures


def check(
    recipe: Recipe | Path | str,
    *,
    overrides: Iterable[str] = (),
    smoke: bool = False,
    devices: bool = True,
    plugin_files: Iterable[Path] = (),
) -> Plan:
    """Finds everything that can be wrong with a recipe before an image is read. Without `devices`, its files are to be
    taken to none.

    `plugin_files` are loaded besides those that the recipe names. Raises `RecipeError` with all problems.
    """
    given = tuple(overrides)
    if isinstance(recipe, str | Path):
        read = read_recipe(Path(recipe), given)
    else:
        read = parse_recipe(recipe.to_json(), recipe.source, given) if given else recipe
    registry = load_registry((*own_plugin_files(read), *plugin_files))
    return make_plan(read, registry, smoke=smoke, devices=devices)


def run(request: RunRequest, console: Console | None = None) -> RunResult:
    """Runs a recipe to its report, as `edgeopt.run` does, and leaves `[measure.sweep]` to it.

    Raises `UserError` for mistakes, `PausedError` where the request asks for it, `WorkerError` for bugs and crashes
    before the first export; one that hits a single export or a device fails its rows, as `RunResult.failures` says.
    """
    plan = check(
        request.recipe,
        overrides=request.overrides,
        smoke=request.smoke or request.shapes,
        devices=request.devices,
        plugin_files=request.plugin_files,
    )
    plan = judged(plan, request.judged_on, measures_fully=request.shapes)
    store = store_of(request.out)
    if request.fresh:
        store = store.anew(stage.key for stage in plan.stages.values())
    folder = run_folder(plan, request.out / request.below)
    pauses = pauses_of(plan, request.pause)
    bucket = request.bucket.tried() if request.bucket else None
    made = _Run(plan, store, folder, request.measure_again, request.locked, console, pauses, request.beside, bucket)
    with storage_errors(request.out, inside=request.out):
        return made.run()


def store_of(out: Path) -> Store:
    """The store of cached stages below a folder of results."""
    return Store(out / ".store")


def run_folder(plan: Plan, out: Path) -> Path:
    """The folder of a run's own results; a smoke run keeps apart from the real one."""
    return out / (f"{plan.recipe.name}-smoke" if plan.smoke else plan.recipe.name)


@dataclass
class _Run:
    """One run on its way."""

    plan: Plan
    store: Store
    folder: Path
    measure_again: bool
    locked: bool
    console: Console | None
    pauses: Mapping[str, int]
    beside: Beside | None = None
    bucket: Bucket | None = None
    exchange: Exchange | None = None
    failures: dict[str, EdgeoptError] = field(default_factory=dict)
    away: dict[str, EdgeoptError] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """Where everything goes that workers and libraries print."""
        return self.folder / "log.txt"

    @cached_property
    def _lock(self) -> lock.Lock:
        """The lock that `--locked` holds the run to."""
        return lock.read(lock.find(self.plan, self.folder))

    def run(self) -> RunResult:
        if self.locked:
            lock.compare_plan(self._lock, self.plan)
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.store.root.mkdir(parents=True, exist_ok=True)
        keys = {name: stage.key for name, stage in self.plan.stages.items()}
        with at_work(self.store.root, keys.values(), f"run of {self.plan.recipe.name!r}"):
            for key in keys.values() if self.store.not_before and not self._is_helper else ():
                self.store.forget_work(key)
            folder = RunFolder(self.folder, None) if self._is_helper else RunFolder.begin(self.folder, keys)
            return self._shared(folder, self.bucket) if self.bucket and not self._is_helper else self._made(folder)

    def _shared(self, folder: RunFolder, bucket: Bucket) -> RunResult:
        """Makes what neither the store nor a bucket has, and lets the bucket have it."""
        from rich.console import Console

        from edgeopt.pipeline.exchange import Exchange

        with Exchange(bucket, self.plan, self.store, self._key, self.console or Console(quiet=True)) as self.exchange:
            self._missing(found=self.exchange.found)
            result = self._made(folder)
            self.exchange.complete()
        unseen = (bucket.given_up,) if bucket.given_up and self.console is None else ()
        return replace(result, notes=(*result.notes, *unseen))

    def _made(self, folder: RunFolder) -> RunResult:
        """Makes what is not there, and fills the run's folder."""
        if self._found(self.plan.stages["model"]):  # built by a recipe whose passes may have been others
            require_trained(self.plan, self._results.model().untrained)
        if self._missing():
            self._work()
        return self._finish(folder)

    @property
    def _is_helper(self) -> bool:
        """Whether this is another machine of a distributed training, which trains along and does nothing else."""
        return machines.is_other_machine(self.plan)

    # -- what is there

    def _found(self, stage: Stage) -> Result | None:
        return self.store.find(self._key(stage))

    def _key(self, stage: Stage) -> str:
        return stage.key_without(self.failures, self.away)

    def _missing(
        self, kinds: Sequence[StageKind] = tuple(StageKind), found: Callable[[Stage], Result | None] | None = None
    ) -> list[Stage]:
        """The stages that must be made, each after those it needs; `found` looks for a result, or else the store does.

        What only finished stages need is made for a report, which tells of each stage, and for files of other sizes.
        """
        stages = self.plan.stages.values()

        def look(stage: Stage) -> Result | None:
            return None if self.measure_again and stage.kind in _FIGURES else (found or self._found)(stage)

        ends = [stage for stage in stages if stage.kind not in (StageKind.MODEL, StageKind.PASS)]
        wanted = missing_stages(self.plan, ends, look)
        if self.plan.recipe.measure.sweep or any(stage.kind is StageKind.REPORT for stage in wanted):
            wanted = missing_stages(self.plan, stages, look)
        return [stage for stage in wanted if stage.kind in kinds]

    # -- the work

    def _work(self) -> None:
        from rich.console import Console  # shown things are loaded only when there is something to show

        from edgeopt.workers.display import Display

        self.store.sweep()
        console = self.console or Console(quiet=True)
        if self._is_helper:
            self._help(console)
            return
        beat_file, several = machines.beat_file(self.plan, self.store.root), self.plan.recipe.trainer.num_nodes > 1
        beats = machines.beating(beat_file, self.store.not_before) if several else nullcontext()
        with (
            beats,
            Display(console) as display,
            Workers(
                self.store.root / "jobs", self.log, self.exchange.listener(display) if self.exchange else display
            ) as workers,
            self._neighbours(workers) as neighbours,
        ):
            handed = hand_over_plan(self.plan, self.store, workers.folder, self._tracked, self.pauses)
            self._trunk(workers, handed)
            self._files(workers, handed)
            self._measure(workers, handed, display, neighbours.alone if neighbours else nullcontext)
            self._devices(workers, handed)
            self._report(workers, handed)

    def _neighbours(self, workers: Workers) -> AbstractContextManager[Neighbours | None]:
        """This run among those beside it, where there are any."""
        return Neighbours(self.store.turns, workers, self.beside.cores) if self.beside else nullcontext()

    @property
    def _tracked(self) -> TrackedRun | None:
        """The run in the trackers that the recipe names; a changed recipe is another run there."""
        loggers = self.plan.recipe.trainer.loggers
        key = self.plan.stages["report"].key[:_TRACKED_KEY]
        return TrackedRun(Identity(self.folder.name, key, self.folder.resolve()), loggers) if loggers else None

    def _help(self, console: Console) -> None:
        """Trains along, and waits until the first machine, with which the store is shared, has finished the run."""
        from edgeopt.workers.display import Display

        first = machines.FirstMachine(machines.beat_file(self.plan, self.store.root))
        mine = machines.beat_file(self.plan, self.store.root, machines.number_of_this())
        with (
            machines.beating(mine, 0.0),
            Display(console) as display,
            Workers(self.store.root / "jobs", self.log, display) as workers,
        ):
            self.store = replace(self.store, not_before=first.not_before())
            self._trunk(workers, hand_over_plan(self.plan, self.store, workers.folder))
            while not self._found(self.plan.stages["report"]):
                first.require_work()
                time.sleep(_WAIT_SECONDS)

    def _job(self, handed: HandedPlan, *stages: Stage) -> StagesJob:
        failed = {name: str(error) for name, error in self.failures.items()}
        return handed.job(stages, self.log.name, failed, {name: in_a_line(error) for name, error in self.away.items()})

    def _trunk(self, workers: Workers, handed: HandedPlan) -> None:
        """Data, model, passes and programs, one after the other."""
        stages = self._missing(_TRUNK)
        jobs = [[stage] for stage in stages] if self.locked else trunk_jobs(self.plan, stages)
        for job in jobs:
            if machines.share(self.plan, job):
                machines.require_others(self.plan, self.store.root)
            workers.run(self._job(handed, *job), "run", self.plan.recipe.trainer.threads)
            if self.locked and job[0].kind is StageKind.DATA:
                lock.compare_data(self._lock, self._results.data().fingerprint)

    def _files(self, workers: Workers, handed: HandedPlan) -> None:
        """Exports and verifies every file, side by side; a failure stays with its file.

        One more is at work than there are cores, so that none is idle while the last one ends.
        """
        with self._nursery(workers) as nursery, ThreadPoolExecutor(min(_SIDE_BY_SIDE, usable_cores() + 1)) as pool:
            futures = {
                planned.name: pool.submit(self._file, workers, handed, planned, nursery)
                for planned in self.plan.exports
                if not all(self._found(self.plan.stages[name]) for name in (planned.export_stage, planned.verify_stage))
            }
            try:
                for name, future in futures.items():
                    try:
                        future.result()
                    except (UserError, WorkerError) as error:
                        self.failures[name] = error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                workers.end()
                raise

    def _nursery(self, workers: Workers) -> AbstractContextManager[Nursery | None]:
        """What several exports of torch programs have in common is imported once: a third of what a small one takes."""
        exports = [self.plan.stages[planned.export_stage] for planned in self.plan.exports]
        if self.plan.framework != TORCH or sum(not self._found(stage) for stage in exports) < _SEVERAL:
            return nullcontext()
        return workers.nursery(_EXPORT_MODULES, _EXPORT_THREADS)

    def _file(self, workers: Workers, handed: HandedPlan, planned: PlannedExport, nursery: Nursery | None) -> None:
        export, verify = (self.plan.stages[name] for name in (planned.export_stage, planned.verify_stage))
        if not self._found(export):
            workers.run(self._job(handed, export), export.label, _EXPORT_THREADS, _SILENCE_LIMIT_S, nursery)
        if not self._found(verify):
            workers.run(self._job(handed, verify), verify.label, limit_s=self.plan.measure.timeout_s)

    def _measure(
        self,
        workers: Workers,
        handed: HandedPlan,
        display: Display,
        alone: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Latency and memory of each file, when nothing else of the run is working: one file at a time, in turns."""
        stage = self.plan.stages["measure"]
        for each in self.plan.stages.values() if self.measure_again else ():
            if each.kind in _FIGURES:
                self.store.forget(self._key(each))
        planned = [each for each in self.plan.exports if each.name not in self.failures]
        if not planned or self._found(stage):
            return
        planned = [each for each in planned if self._runs_here(each)]
        measuring = Measuring(
            handed, stage, lambda failed: stage.key_without({**self.failures, **failed}, self.away), workers, alone
        )
        self.failures |= measuring.measure(planned, display)
        display.say(stage.label, self._result("measure").seconds)
        if self.exchange:
            self.exchange.made(stage)

    def _runs_here(self, planned: PlannedExport) -> bool:
        """Whether the file's own runtime is on this machine."""
        exported = self._results.export(planned).exported
        return not (exported.not_run or exported.stand_in)

    def _devices(self, workers: Workers, handed: HandedPlan) -> None:
        """Answers and latency of the files on each device, one device after the other; one that is away stays alone."""
        for stage in self._missing([StageKind.DEVICE]):
            if len(self.failures) == len(self.plan.exports):
                self.away[stage.name] = ExportError(f"{stage.label}: no file was made for it")
                continue
            try:
                workers.run(self._job(handed, stage), stage.label, limit_s=_SILENCE_LIMIT_S)
            except (UserError, WorkerError) as error:
                self.away[stage.name] = error

    def _report(self, workers: Workers, handed: HandedPlan) -> None:
        stage = self.plan.stages["report"]
        if not self._found(stage):
            workers.run(self._job(handed, stage), stage.label)

    # -- the end

    @property
    def _results(self) -> Results:
        return Results(self.plan, self._result)

    def _result(self, name: str) -> Result:
        if found := self._found(self.plan.stages[name]):
            return found
        raise StorageError(f"the result of stage {name!r} has gone from {self.store.root}", hint="start the run again")

    def _finish(self, folder: RunFolder) -> RunResult:
        """Puts what was made into the run's folder."""
        from edgeopt.report.schema import Report

        report = Report.from_json((self._result("report").folder / "report.json").read_text())
        if self._is_helper:
            return RunResult(report, self.folder)
        fill(folder, self._results, self.failures, self._lock if self.locked else None)
        leftovers = folder.end({name: self._key(stage) for name, stage in self.plan.stages.items()})
        notes = leftovers.said(self.folder)
        if notes:
            with self.log.open("a", encoding="utf-8") as log:
                log.writelines(f"\n{note}\n" for note in notes)
        failures = (*self.failures.values(), *self.away.values(), *self._failed_there())
        return RunResult(report, self.folder, failures, notes)

    def _failed_there(self) -> list[EdgeoptError]:
        """What files could not do on devices. It is not kept, so that the next run tries again."""
        errors: list[EdgeoptError] = []
        for stage in self.plan.stages.values():
            if stage.kind is not StageKind.DEVICE or stage.name in self.away:
                continue
            failed = [each for each in self._results.there(stage.name).files if each.error and not each.refused]
            errors += (DeviceError(f"{stage.label}: {each.file}: {each.error}") for each in failed)
            for each in (self.plan.stages["report"], stage) if failed else ():
                self.store.forget(self._key(each))
        return errors
