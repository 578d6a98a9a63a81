"""Latencies of two runs beside each other: only on one kind of machine, or on the same device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeopt.comparison.machine import device_differences, device_of
from edgeopt.comparison.runs import ReadRun
from edgeopt.comparison.schema import Change, DeviceChange, LatencyChange
from edgeopt.measure.latency import Latency
from edgeopt.measure.on_device import FileThere
from edgeopt.report.devices import there as there_of
from edgeopt.report.latencies import LatencyPair, certainly_apart, is_same, measured_alike
from edgeopt.report.schema import MeasuredDevice, Row


def latency_change(first: ReadRun, other: ReadRun, before: Row, after: Row) -> tuple[LatencyChange | None, str | None]:
    """Latencies as each run measured them, or why one is not known. A ratio only on one kind of machine."""
    for run, row in ((first, before), (other, after)):
        if row.latency_ms is None:
            why = row.not_run or (row.stand_in and f"{row.stand_in} answered in its place") or "it was not measured"
            return None, f"{run.title}: {why}"
    assert before.latency_ms and after.latency_ms
    differences = "; ".join(device_differences(first.device, other.device))
    why = f"measured on different machines ({differences})" if differences else ""
    return _on_one_machine(before.latency_ms, after.latency_ms, why), None


def on_devices(first: ReadRun, other: ReadRun, before: Row, after: Row) -> Iterator[DeviceChange]:
    """A file and its partner on each device that one of the runs names. A ratio only where it is the same device."""
    devices = [{each.name: each for each in run.report.devices} for run in (first, other)]
    for name in dict.fromkeys([*devices[0], *devices[1]]):
        there = [found.get(name) for found in devices]
        files = [there_of(found, row) if found else None for found, row in zip(there, (before, after), strict=True)]
        told = [file and file.answers for file in files]
        latency, reason = _latency_there((first, other), there, files)
        yield DeviceChange(
            device=name,
            accuracy_before=told[0].test_accuracy if told[0] else None,
            accuracy_after=told[1].test_accuracy if told[1] else None,
            differing_before=told[0].differing if told[0] else None,
            differing_after=told[1].differing if told[1] else None,
            latency=latency,
            no_latency=reason,
            score_before=told[0].score if told[0] else None,
            score_after=told[1].score if told[1] else None,
        )


def _latency_there(
    runs: Sequence[ReadRun], devices: Sequence[MeasuredDevice | None], files: Sequence[FileThere | None]
) -> tuple[LatencyChange | None, str | None]:
    """Latencies on one device, or why one is not known."""
    for run, device, file in zip(runs, devices, files, strict=True):
        if device is None:
            return None, f"{run.title} did not measure there"
        if file is None or file.latency_ms is None:
            return None, f"{run.title}: {device.error or (file and file.error) or 'it was not measured there'}"
    (one, before), (two, after) = zip(devices, files, strict=True)
    assert one and two and before and after and before.latency_ms and after.latency_ms
    differences = [f"{one.kind} and {two.kind}"] if one.kind != two.kind else []
    if one.facts and two.facts:
        differences += device_differences(device_of(one.facts), device_of(two.facts))
    why = f"two different devices have this name ({'; '.join(differences)})" if differences else ""
    return _on_one_machine(before.latency_ms, after.latency_ms, why), None


def _on_one_machine(before: Latency, after: Latency, why_not: str) -> LatencyChange:
    """Two latencies of different times; `why_not` says why their machines are not one, empty where they are."""
    if why_not:
        return LatencyChange(before=before, after=after, why_not=why_not)
    if not measured_alike(before, after):
        reason = f"measured differently ({_measured(before)}; {_measured(after)})"
        return LatencyChange(before=before, after=after, why_not=reason)
    return _apart(before, after)


def _measured(latency: Latency) -> str:
    threads = "1 thread" if latency.threads == 1 else f"{latency.threads} threads"
    images = "1 image" if latency.batch_size == 1 else f"{latency.batch_size} images"
    return f"{threads}, {images} in a call"


def _apart(before: Latency, after: Latency) -> LatencyChange:
    """Two latencies of different times on one kind of machine."""
    ratio = after.p50 / before.p50 if before.p50 and after.p50 else None
    if ratio is None:
        return LatencyChange(before=before, after=after, why_not="a call took no time that can be measured")
    slower = Change.WORSE if ratio > 1 else Change.BETTER
    return LatencyChange(
        before=before, after=after, ratio=ratio, verdict=slower if certainly_apart(before, after) else Change.UNCLEAR
    )


def timed_together(before: Latency, after: Latency) -> LatencyChange:
    """Two latencies that were measured turn by turn beside each other."""
    pair = LatencyPair(before, after)
    factor = pair.factor
    if factor is None:
        why = "a call took no time that can be measured"
        return LatencyChange(before=before, after=after, why_not=why, together=True)
    faster = Change.BETTER if factor > 1 else Change.WORSE
    verdict = (Change.SAME if is_same(factor) else Change.UNCLEAR) if pair.within_noise else faster
    return LatencyChange(before=before, after=after, ratio=1 / factor, verdict=verdict, together=True)
