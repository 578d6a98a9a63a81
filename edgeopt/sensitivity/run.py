"""`edgeopt sensitivity`: the float model of a recipe, made or found in the store, and a scan of it in a process of its
own.

```
recipe ─▶ data ─▶ model ─▶ float passes ─▶ scan ─▶ sensitivity.csv, allocation.toml, sensitivity.html
```

This module is light: it plans, looks results up, and lets a worker (`edgeopt.sensitivity.worker`) do the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgeopt.cores import usable_cores
from edgeopt.errors import Problem, RecipeError, StorageError
from edgeopt.files import place, storage_errors
from edgeopt.pipeline.job import StagesJob, hand_over_plan, missing_stages, trunk_jobs
from edgeopt.pipeline.record import RunRecord
from edgeopt.pipeline.runner import check, run_folder, store_of
from edgeopt.plugins.declarations import ProbePlugin
from edgeopt.plugins.handed import hand_over
from edgeopt.plugins.use import Use
from edgeopt.recipe.lookup import resolve
from edgeopt.recipe.plan import Plan
from edgeopt.recipe.read import Recipe, Source, overridden
from edgeopt.sensitivity.scan_settings import ScanSettings
from edgeopt.sensitivity.table import Scan
from edgeopt.types import TORCH
from edgeopt.workers.holders import at_work
from edgeopt.workers.pool import Workers
from edgeopt.workers.store import Store

if TYPE_CHECKING:  # rich is loaded when something is shown
    from rich.console import Console

SCAN = "scan.json"
FILES = ("sensitivity.csv", "allocation.toml", "sensitivity.html")
_PROBE = "probe."


@dataclass(frozen=True)
class SensitivityRequest:
    """What was asked for: a probe, its levels (its own when empty) and options
    (`probe.OPTION=VALUE`), and how to scan.
    """

    of: str
    levels: tuple[float, ...] = ()
    options: tuple[str, ...] = ()
    settings: ScanSettings = field(default_factory=ScanSettings)


@dataclass(frozen=True)
class SensitivityJob:
    """What a worker is to do: the missing stages of `job`, and then the scan that `scan`, a file, holds."""

    module: ClassVar[str] = "edgeopt.sensitivity.worker"

    job: StagesJob
    scan: Path


@dataclass(frozen=True)
class PlannedScan:
    """A request that can be carried out: the probe with its options, levels with the mildest first, and the result's
    key.
    """

    request: SensitivityRequest
    probe: Use[ProbePlugin]
    levels: tuple[float, ...]
    key: str


@dataclass(frozen=True)
class SensitivityResult:
    """The table, and the folder with the files that were written of it."""

    scan: Scan
    folder: Path

    @property
    def files(self) -> list[Path]:
        """The files, those that a scan without a threshold does not have left out."""
        return [file for name in FILES if (file := self.folder / name).exists()]


def plan_scan(plan: Plan, request: SensitivityRequest) -> PlannedScan:
    """Checks a request against the plugins.

    Raises `RecipeError` with every problem.
    """
    if plan.framework != TORCH:
        message = f"the recipe's model is one of {plan.framework}: layers are measured in models of {TORCH} only"
        raise RecipeError(Problem(message))
    values, lines = overridden({"probe": {}}, Source(), request.options)
    use = resolve(ProbePlugin, request.of, values["probe"], plan.registry, lines, ("probe",))
    scale = use.plugin.levels
    levels = scale.sorted(request.levels or scale.default)
    problems = [
        Problem(f"--levels: {reason}", f"levels of {request.of} are such as {_listed(scale.default)}")
        for level in levels
        if (reason := scale.problem(level))
    ]
    if problems:
        raise RecipeError(*problems)
    settings = asdict(replace(request.settings, workers=1))  # the number of workers does not change the result
    data = plan.stages["data"].key
    key = plan.key_of(use, plan.float_stage.key, data, list(levels), settings, "sensitivity")
    return PlannedScan(request, use, levels, key)


def measure_sensitivity(
    recipe: Recipe | Path | str,
    request: SensitivityRequest,
    *,
    overrides: Iterable[str] = (),
    smoke: bool = False,
    out: Path | str = "runs",
    plugin_files: Iterable[Path] = (),
    console: Console | None = None,
) -> SensitivityResult:
    """Measures what each level of compression costs at each layer of a recipe's float model, on the validation split.

    The model is what the recipe's passes leave before the first that optimizes, taken from the store where it is there.
    Files go to `out/NAME/sensitivity-OF`. A scan that was killed goes on where it stopped, and one that is asked for
    again is looked up. Overrides that begin with "probe." are for the probe's options. Nothing is shown without a
    `console`.

    Raises `UserError` for mistakes, `WorkerError` for bugs and crashes.
    """
    given, files = tuple(overrides), tuple(Path(file) for file in plugin_files)
    request = replace(request, options=(*request.options, *(each for each in given if each.startswith(_PROBE))))
    rest = [each for each in given if not each.startswith(_PROBE)]
    plan = check(recipe, overrides=rest, smoke=smoke, plugin_files=files)
    planned = plan_scan(plan, request)
    store = store_of(Path(out))
    folder = run_folder(plan, Path(out)) / f"sensitivity-{request.of}"
    stages = {"data": plan.stages["data"].key, plan.float_stage.name: plan.float_stage.key, "scan": planned.key}
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        store.root.mkdir(parents=True, exist_ok=True)
    with at_work(store.root, {*(stage.key for stage in plan.stages.values()), planned.key}, f"scan of {folder}"):
        RunRecord(stages).write(folder)
        if store.find(planned.key) is None:
            _work(plan, store, planned, folder, console)
        result = store.find(planned.key)
    if result is None:
        raise StorageError(f"the result of the scan has gone from {store.root}", hint="start it again")
    for name in FILES:
        if (result.folder / name).exists():
            place(result.folder / name, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)  # of an earlier scan: not this one's
    return SensitivityResult(Scan.from_json((result.folder / SCAN).read_text(encoding="utf-8")), folder)


def _work(
    plan: Plan,
    store: Store,
    scan: PlannedScan,
    folder: Path,
    console: Console | None,
) -> None:
    from rich.console import Console as RichConsole  # shown things are loaded only when there is something to show

    from edgeopt.workers.display import Display

    store.sweep()
    log = folder / "log.txt"
    missing = missing_stages(plan, [plan.stages["data"], plan.float_stage], lambda stage: store.find(stage.key))
    *earlier, last = trunk_jobs(plan, missing) or [[]]
    threads = plan.recipe.trainer.threads
    settings = scan.request.settings
    settings = replace(settings, workers=settings.workers or threads or usable_cores())
    scan = replace(scan, request=replace(scan.request, settings=settings))
    with Display(console or RichConsole(quiet=True)) as display, Workers(store.root / "jobs", log, display) as workers:
        handed = hand_over_plan(plan, store, workers.folder)
        for stages in earlier:
            workers.run(handed.job(stages, log.name), "run", threads)
        file = workers.folder / "scan.pickle"
        hand_over(scan, file, plan.registry)
        workers.run(SensitivityJob(handed.job(last, log.name), file), "sensitivity", threads)


def _listed(levels: Iterable[float]) -> str:
    return ", ".join(f"{level:g}" for level in levels)
