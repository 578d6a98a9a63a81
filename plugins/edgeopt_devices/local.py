"""This machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from edgeopt.devices import AgentDevice, AgentSettings
from edgeopt.plugins import Problem
from edgeopt_devices.options import LocalOptions


class NoWay:
    """The way to this machine, which is none."""

    def command(self, program: Sequence[str]) -> list[str]:
        """See `edgeopt.devices.Link`."""
        return list(program)

    def push(self, file: Path, target: str) -> subprocess.CompletedProcess[str]:
        """See `edgeopt.devices.Link`."""
        return subprocess.run(["cp", "--", file, target], capture_output=True, text=True, check=False)

    def explain(self, code: int, said: str) -> Problem:
        """See `edgeopt.devices.Link`."""
        lines = [line for line in said.splitlines() if line.strip()]
        return Problem(f"the agent ended with code {code}: {lines[-1] if lines else 'it said nothing'}")

    def is_lost(self, code: int) -> bool:  # noqa: ARG002
        """See `edgeopt.devices.Link`."""
        return False


def open_local(options: LocalOptions, name: str, waiting: Callable[[str], None]) -> AgentDevice:
    """This machine, with the packages of this Python."""
    settings = AgentSettings(python=sys.executable, install=False, cores=options.cores, edgeopt=True)
    return AgentDevice(name, NoWay(), settings, waiting)
