"""The figures of a run's files, and its recipe, in the trackers that it names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from edgeopt.arrays import Json
from edgeopt.report.devices import there
from edgeopt.report.schema import MeasuredDevice, Report, Row
from edgeopt.tracking.tracked import TrackedRun


def track_files(report: Report, tracked: TrackedRun) -> Report:
    """Logs every file's figures; the report then says of each tracker that failed why."""
    if not tracked.loggers:
        return report
    with tracked.part("files") as part:
        part.describe(dict(_flat(report.recipe.resolved)))
        for row in report.rows:
            if not row.error:
                figures = (*_figures(row), *_figures_there(row, report.devices))
                part.log({f"{row.export}/{row.role}/{name}": value for name, value in figures}, 0)
    said = (f"The logger {logger} failed and has not all figures: {why}." for logger, why in part.failures.items())
    return replace(report, verdicts=(*report.verdicts, *said))


def _figures(row: Row) -> Iterator[tuple[str, float]]:
    latency = row.latency_ms
    p50, p90 = (latency.p50, latency.p90) if latency else (None, None)
    for name, value in (
        *((f"test {score.kind.called}", score.value) for score in row.scores),
        ("agreement", row.agreement),
        ("bytes", row.size_bytes),
        ("p50 ms", p50),
        ("p90 ms", p90),
        ("peak memory bytes", row.peak_memory_bytes),
        ("mJ of an image", row.energy.mj_per_image if row.energy else None),
    ):
        if value is not None:
            yield name, float(value)


def _figures_there(row: Row, devices: Sequence[MeasuredDevice]) -> Iterator[tuple[str, float]]:
    """What a file did on each device."""
    for device in devices:
        if (file := there(device, row)) is None:
            continue
        if file.answers:
            for score in file.answers.scores:
                yield f"{device.name}/test {score.kind.called}", score.value
            yield f"{device.name}/agreement", file.answers.agreement
        if file.latency_ms:
            yield f"{device.name}/p50 ms", file.latency_ms.p50
        if file.energy:
            yield f"{device.name}/mJ of an image", file.energy.mj_per_image


def _flat(values: Json, key: str = "") -> Iterator[tuple[str, str]]:
    """Every leaf of JSON by its dotted key, as a text."""
    items = values.items() if isinstance(values, Mapping) else enumerate(values) if isinstance(values, list) else None
    if items is None or not values:
        yield key, values if isinstance(values, str) else json.dumps(values)
        return
    for name, inner in items:
        yield from _flat(inner, f"{key}.{name}" if key else str(name))
