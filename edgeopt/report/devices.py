"""Files on devices: in what they differ from the same files here, and how fast they are there. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeopt.measure.on_device import DeviceAnswers, FileThere
from edgeopt.plugins.device import DeviceFacts
from edgeopt.report import energies, figures
from edgeopt.report.compare import baseline_of, title
from edgeopt.report.latencies import LatencyPair, measured_alike
from edgeopt.report.schema import MeasuredDevice, Row
from edgeopt.tasks.scores import ACCURACY
from edgeopt.types import Role


def there(device: MeasuredDevice, row: Row) -> FileThere | None:
    """What a file did on a device; None where the device could not be used, or the file not be made."""
    return next((each for each in device.files if each.file == row.file), None)


def latencies_there(device: MeasuredDevice, row: Row, rows: Sequence[Row]) -> LatencyPair | None:
    """The latencies of the float and of the optimized file of an export, as they took turns on a device."""
    baseline = baseline_of(row, rows)
    if row.role is not Role.OPTIMIZED or baseline is None:
        return None
    before, after = there(device, baseline), there(device, row)
    if not (before and after and before.latency_ms and after.latency_ms):
        return None
    pair = LatencyPair(before.latency_ms, after.latency_ms)
    return pair if measured_alike(pair.before, pair.after) else None


def device_verdicts(devices: Sequence[MeasuredDevice], rows: Sequence[Row]) -> Iterator[str]:
    """What must not be overlooked: a device that is away, one that answers otherwise than this machine, and files that
    it did not take.
    """
    yield from (f"{away(each.name, each.error)}." for each in devices if each.error)
    titles = {row.file: f"{title(row)} ({row.role})" for row in rows}
    for device in devices:
        for each in device.files:
            if each.answers and each.answers.differing:
                yield f"{answers_otherwise(device.name, titles[each.file], each.answers)}."
        notes: dict[str, list[str]] = {}
        for each in device.files:
            if each.note:
                notes.setdefault(each.note, []).append(titles[each.file])
        yield from (f"{device.name}, {', '.join(names)}: {note}." for note, names in notes.items())
        failed: dict[str, list[str]] = {}
        for each in device.files:
            if each.error:
                failed.setdefault(each.error, []).append(titles[each.file])
        for error, names in failed.items():
            yield f"{device.name} has no whole figures of {', '.join(names)}: {error}."
        yield from energies.untold(((titles[each.file], each.energy_problem) for each in device.files), device.name)


def away(device: str, why: str) -> str:
    """The sentence of a device that could not be used to the end."""
    return f"{device} was not measured to the end: {why}"


def answers_otherwise(device: str, file: str, answers: DeviceAnswers) -> str:
    """The sentence of a file whose answers on a device are others than on this machine."""
    ties = f" ({answers.near_ties} of them within rounding)" if answers.near_ties else ""
    called = answers.score.kind.called if answers.score else ACCURACY.called
    return (
        f"{device} answers otherwise than this machine: {file}, {answers.differing} of {answers.images} images{ties}; "
        f"{called} there {figures.score(answers.score)}, its outputs differ by up to "
        f"{answers.max_logit_difference:.3g}"
    )


def described(name: str, facts: DeviceFacts) -> str:
    """A device in a line: what it is, how it is, and the versions that are there."""
    parts = [
        facts.processor,
        facts.machine,
        f"{facts.cores} {'core' if facts.cores == 1 else 'cores'}",
        f"governor {facts.governor}" if facts.governor else "",
        f"{facts.clock_mhz:.0f} MHz" if facts.clock_mhz else "",
        figures.size(facts.memory_bytes) if facts.memory_bytes else "",
        f"{facts.temperature_c:.0f} °C" if facts.temperature_c is not None else "",
        facts.system,
        f"Python {facts.python}" if facts.python else "",
        *(f"{name} {version}" for name, version in sorted(facts.versions.items())),
    ]
    return f"{name}: {', '.join(part for part in parts if part)}"
