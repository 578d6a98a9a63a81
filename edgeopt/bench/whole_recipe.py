"""All that a recipe asks for: its run, and the benchmark of the run's files along the axes of `[measure.sweep]`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.bench.request import swept
from edgeopt.bench.run import FOLDER, PAGE, BenchResult, is_measured, run_bench
from edgeopt.options import MeasureSettings
from edgeopt.pipeline import machines, runner
from edgeopt.pipeline.request import RunRequest, RunResult
from edgeopt.recipe.read import Recipe
from edgeopt.workers.bucket import Bucket

if TYPE_CHECKING:  # rich is loaded when something is shown
    from rich.console import Console


def run(
    recipe: Recipe | Path | str,
    *,
    overrides: Iterable[str] = (),
    smoke: bool = False,
    fresh: bool = False,
    measure_again: bool = False,
    locked: bool = False,
    devices: bool = True,
    out: Path | str = "runs",
    plugin_files: Iterable[Path] = (),
    bucket: str | None = None,
    console: Console | None = None,
) -> RunResult:
    """Runs a recipe to its report: trains, optimizes, exports, opens every file and measures it.

    `smoke` runs the whole of it on few batches, `fresh` uses no earlier result, `measure_again` no earlier latency and
    memory, `locked` refuses to run when anything is not as `lock.toml` says, and without `devices` no file is taken to
    the devices of the recipe. Results go to `out/NAME`, cached stages to `out/.store`, and what `[measure.sweep]` asks
    for to `out/NAME/bench`. `bucket` is an address, as fsspec opens it, through which machines share the results of
    stages. Nothing is shown without a `console`.

    Raises `UserError` for mistakes, `WorkerError` for bugs and crashes before the first export; one that hits a single
    export, or a device, fails its rows and is among `RunResult.failures`.
    """
    request = RunRequest(
        recipe,
        tuple(overrides),
        smoke=smoke,
        fresh=fresh,
        measure_again=measure_again,
        locked=locked,
        devices=devices,
        out=Path(out),
        plugin_files=tuple(plugin_files),
        bucket=Bucket(bucket) if bucket else None,
    )
    result = runner.run(request, console)
    sweep(result, request, console)
    return result


def sweep(result: RunResult, request: RunRequest, console: Console | None = None) -> BenchResult | Path | None:
    """Benchmarks the files of a run along the axes that its recipe names, or names the page where that was done before.

    None where the recipe names no axis, in a smoke run, on a helping machine, and where a file of the run failed. A
    device that is away keeps nobody from it. Where the run measures again, or all anew, nothing that was measured
    before counts.
    """
    resolved = result.report.recipe.resolved
    measure = MeasureSettings.model_validate(resolved.get("measure", {}))
    is_helper = resolved.get("trainer", {}).get("num_nodes", 1) > 1 and machines.number_of_this() != 0
    is_whole = not any(row.error for row in result.report.rows)
    if measure.sweep is None or result.report.smoke or is_helper or not is_whole:
        return None
    bench = swept(result.folder, measure, request.plugin_files)
    if not (request.measure_again or request.fresh) and is_measured(bench):
        return result.folder / FOLDER / PAGE
    return run_bench(bench, console)
