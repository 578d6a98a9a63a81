"""Runs compared: read, paired, timed together where that is asked for, judged and put into sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt._version import __version__
from edgeopt.comparison.files import file_change, pair_rows
from edgeopt.comparison.gate import judge
from edgeopt.comparison.latencies import timed_together
from edgeopt.comparison.machine import this_device
from edgeopt.comparison.recipes import recipe_differences, version_differences
from edgeopt.comparison.runs import ReadRun, read_runs
from edgeopt.comparison.same_data import same_images
from edgeopt.comparison.schema import BytesChange, FileChange, LatencyChange, Limits, RunChange, RunComparison
from edgeopt.comparison.sentences import sentences
from edgeopt.comparison.together import TimedTogether, require_timeable, time_together
from edgeopt.plugins.registry import load_registry

if TYPE_CHECKING:  # rich is loaded when something is shown
    from rich.console import Console


def compare(
    folders: Sequence[Path | str],
    *,
    limits: Limits | None = None,
    measure_together: bool = False,
    plugin_files: Sequence[Path] = (),
) -> RunComparison:
    """Holds the finished runs in `folders` against the first of them; see `compare_runs`.

    Raises `UserError` with everything that is wrong with any of them.
    """
    runs = read_runs([Path(folder) for folder in folders])
    return compare_runs(runs, limits=limits, measure_together=measure_together, plugin_files=plugin_files)


def compare_runs(
    runs: Sequence[ReadRun],
    *,
    limits: Limits | None = None,
    measure_together: bool = False,
    plugin_files: Sequence[Path] = (),
    console: Console | None = None,
) -> RunComparison:
    """Holds each run against the first one.

    `limits` lets every figure be judged, `measure_together` times the files of all runs turn by turn on this machine,
    for which `plugin_files` may bring exporters. Nothing is shown without a `console`.

    Raises `UserError` with everything for which the files cannot be timed together.
    """
    timed = None
    if measure_together:
        registry = load_registry(plugin_files)
        require_timeable(runs, registry)
        timed = time_together(runs, registry, console)
    return RunComparison(
        edgeopt=__version__,
        runs=tuple(run.said for run in runs),
        changes=tuple(_change(runs, number, timed, limits) for number in range(1, len(runs))),
        together=this_device() if timed else None,
        not_timed={f"{runs[number].title}: {file}": reason for (number, file), reason in timed.failures.items()}
        if timed
        else {},
        limits=limits,
    )


def _change(runs: Sequence[ReadRun], number: int, timed: TimedTogether | None, limits: Limits | None) -> RunChange:
    """A run against the first."""
    first, other = runs[0], runs[number]
    pairs, unpaired = pair_rows(first, other)
    images = same_images(first, other)
    files = tuple(file_change(first, other, pair, images) for pair in pairs)
    if timed is not None:
        files = tuple(_timed(file, number, timed) for file in files)
    change = RunChange(
        run=other.title,
        files=files,
        unpaired=unpaired,
        recipe=recipe_differences(first, other),
        versions=version_differences(first, other),
        gates=judge(files, unpaired, first.title, limits) if limits else (),
    )
    return replace(change, verdicts=sentences(change, first.said, other.said))


def _timed(file: FileChange, number: int, timed: TimedTogether) -> FileChange:
    """The file with the latencies that were measured together, or why they were not; those of the runs go."""
    keys = (0, file.file_before), (number, file.file_after)
    found = [timed.latencies.get(key) for key in keys]
    if found[0] is None or found[1] is None:
        reasons = [timed.failures[key] for key in keys if key in timed.failures]
        return replace(file, latency=None, memory=None, no_latency=reasons[0] if reasons else "it was not measured")
    latency: LatencyChange = timed_together(found[0], found[1])
    before, after = (timed.memory[key] for key in keys)
    memory = BytesChange(before=before, after=after, ratio=after / before) if before else None
    return replace(file, latency=latency, memory=memory, no_latency=None)
