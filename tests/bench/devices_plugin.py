"""Kinds of devices that are this machine with a fault."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from edgeopt.plugins import (
    Device,
    DeviceError,
    DeviceFacts,
    DeviceJob,
    DevicePlugin,
    FileOnDevice,
    Options,
    hookimpl,
)


class NoOptions(Options):
    pass


class Mistaken:
    """Answers with the classes turned around, and is twice as slow."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def describe(self) -> DeviceFacts:
        return replace(self._device.describe(), processor="a processor with a fault")

    def put(self, file: Path, sha256: str) -> None:
        self._device.put(file, sha256)

    def run(self, job: DeviceJob, tell: Callable[[str], None]) -> Mapping[str, FileOnDevice]:
        found = self._device.run(replace(job, whole=None), tell)
        return {
            name: replace(
                each,
                outputs=None if each.outputs is None else tuple(one[:, ::-1] for one in each.outputs),
                turns_ms=tuple(tuple(2 * time_ms for time_ms in turn) for turn in each.turns_ms),
            )
            for name, each in found.items()
        }

    def clean(self) -> None:
        self._device.clean()

    def close(self) -> None:
        self._device.close()


class Silent(Mistaken):
    """Gives no answers, and tells the means of its turns alone; one of its files has more to say."""

    def run(self, job: DeviceJob, tell: Callable[[str], None]) -> Mapping[str, FileOnDevice]:
        found = self._device.run(job, tell)
        return {
            name: replace(
                each,
                outputs=None,
                turns_ms=tuple((sum(turn) / len(turn),) for turn in each.turns_ms),
                means_of=tuple(map(len, each.turns_ms)),
                peak_memory_bytes=0,
                note="its runner gives none" if "baseline" in name else None,
            )
            for name, each in found.items()
        }


class Moody(Mistaken):
    """Has a fault with optimized files until the environment says that it was mended."""

    def run(self, job: DeviceJob, tell: Callable[[str], None]) -> Mapping[str, FileOnDevice]:
        found = self._device.run(job, tell)
        if "MOODY_DEVICE_IS_MENDED" in os.environ:
            return found
        return {
            name: FileOnDevice(error="out of memory") if "optimized" in name else each for name, each in found.items()
        }


def open_mistaken(options: NoOptions, name: str, waiting: Callable[[str], None]) -> Device:
    from edgeopt_devices.local import open_local
    from edgeopt_devices.options import LocalOptions

    return Mistaken(open_local(LocalOptions(), name, waiting))


def open_silent(options: NoOptions, name: str, waiting: Callable[[str], None]) -> Device:
    from edgeopt_devices.local import open_local
    from edgeopt_devices.options import LocalOptions

    return Silent(open_local(LocalOptions(), name, waiting))


def open_moody(options: NoOptions, name: str, waiting: Callable[[str], None]) -> Device:
    from edgeopt_devices.local import open_local
    from edgeopt_devices.options import LocalOptions

    return Moody(open_local(LocalOptions(), name, waiting))


def open_away(options: NoOptions, name: str, waiting: Callable[[str], None]) -> Device:
    raise DeviceError(f"{name}: it is away: nobody answers", hint="switch it on")


@hookimpl
def edgeopt_devices() -> Iterator[DevicePlugin]:
    yield DevicePlugin("mistaken", "Answers otherwise.", NoOptions, open=open_mistaken)
    yield DevicePlugin("silent", "Gives times alone.", NoOptions, open=open_silent)
    yield DevicePlugin("moody", "Has a fault that can be mended.", NoOptions, open=open_moody)
    yield DevicePlugin("away", "Never there.", NoOptions, open=open_away)
