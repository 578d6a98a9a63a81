"""The machine that latencies belong to: they are never compared across two."""

from __future__ import annotations

import platform
from collections.abc import Iterator

from edgeopt.comparison.schema import Device
from edgeopt.cores import usable_cores
from edgeopt.measure.state import memory_bytes, processor
from edgeopt.plugins.device import DeviceFacts
from edgeopt.report.figures import size
from edgeopt.report.schema import Environment

_KERNELS_SHARE = 0.05  # of a machine's memory, which differs from one kernel to another


def device(found: Environment) -> Device:
    """The machine that a report was made on."""
    return Device(processor=found.processor, machine=found.machine, cores=found.cores, memory_bytes=found.memory_bytes)


def this_device() -> Device:
    """The machine that this process runs on."""
    return Device(processor=processor(), machine=platform.machine(), cores=usable_cores(), memory_bytes=memory_bytes())


def device_of(facts: DeviceFacts) -> Device:
    """A device as it described itself."""
    return Device(processor=facts.processor, machine=facts.machine, cores=facts.cores, memory_bytes=facts.memory_bytes)


def device_differences(one: Device, other: Device) -> Iterator[str]:
    """In what two machines differ; memory by more than a kernel's own share of it."""
    for name, before, after in (
        ("processor", one.processor, other.processor),
        ("architecture", one.machine, other.machine),
        ("cores", str(one.cores), str(other.cores)),
    ):
        if before != after:
            yield f"{name} {before} and {after}"
    here, there = one.memory_bytes, other.memory_bytes
    if here and there and abs(here - there) > _KERNELS_SHARE * max(here, there):
        yield f"memory {size(here)} and {size(there)}"
