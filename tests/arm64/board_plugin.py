"""A kind of device for the emulated Python: a board that is a folder."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import Field

import edgeopt
from edgeopt.plugins import Device, DevicePlugin, Options, Problem


class EmulatedOptions(Options):
    python: str = Field(description="a script that starts the emulated Python")


class Beside:
    """Everything is on this machine; what runs is emulated."""

    def command(self, program: Sequence[str]) -> list[str]:
        return list(program)

    def push(self, file: Path, target: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["cp", "--", file, target], capture_output=True, text=True, check=False)

    def explain(self, code: int, said: str) -> Problem:
        return Problem(f"the emulated Python ended with code {code}: {said[-500:]}")

    def is_lost(self, code: int) -> bool:
        return False


def open_emulated(options: EmulatedOptions, name: str, waiting: Callable[[str], None]) -> Device:
    from edgeopt.devices import AgentDevice, AgentSettings

    settings = AgentSettings(folder=".edgeopt-emulated", python=options.python, install=False)
    return AgentDevice(name, Beside(), settings, waiting)


@edgeopt.hookimpl
def edgeopt_devices() -> Iterator[DevicePlugin]:
    yield DevicePlugin("emulated", "A Python under emulation.", EmulatedOptions, open=open_emulated)
