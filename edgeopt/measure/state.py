"""What this machine is, how warm it is and how fast it is clocked, where the system tells.

This module goes to devices as it is: it imports the standard library alone.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SYSTEM = Path("/sys")


@dataclass(frozen=True)
class MachineState:
    """The warmest sensor of the processor, °C, and the mean clock of its cores, MHz; None where nobody tells."""

    temperature_c: float | None
    clock_mhz: float | None


def machine_state(system: Path = _SYSTEM) -> MachineState:
    """How the machine is now, by what Linux shows below `system`."""
    thousandths = [*_numbers(system / "class" / "thermal", "thermal_zone*/temp")]
    thousandths += _numbers(system / "class" / "hwmon", "hwmon*/temp*_input")
    clocks_khz = [*_numbers(system / "devices" / "system" / "cpu", "cpu[0-9]*/cpufreq/scaling_cur_freq")]
    return MachineState(
        temperature_c=max(thousandths) / 1e3 if thousandths else None,
        clock_mhz=sum(clocks_khz) / len(clocks_khz) / 1e3 if clocks_khz else None,
    )


def _numbers(folder: Path, pattern: str) -> Iterator[float]:
    for file in folder.glob(pattern):
        try:
            yield float(file.read_text())
        except (OSError, ValueError):  # a sensor that is off
            continue


def governor(system: Path = _SYSTEM) -> str | None:
    """How the clock of the cores is set, as in "performance"; None where nobody tells."""
    files = sorted((system / "devices" / "system" / "cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"))
    try:
        return ", ".join(dict.fromkeys(file.read_text().strip() for file in files)) or None
    except OSError:
        return None


def fastest_cores(count: int, system: Path = _SYSTEM) -> tuple[int, ...]:
    """The numbers of the `count` usable cores with the highest clock that they can have, the last of equals."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)

    def most_khz(core: int) -> float:
        folder = system / "devices" / "system" / "cpu" / f"cpu{core}" / "cpufreq"
        return next(_numbers(folder, "cpuinfo_max_freq"), 0.0)

    return tuple(sorted(sorted(usable, key=lambda core: (most_khz(core), core))[-count:]))


def processor() -> str:
    """The processor's name, or the board's, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    board = Path("/proc/device-tree/model")
    if board.is_file():
        return board.read_text().strip("\0\n ")
    return platform.processor() or "unknown"


def memory_bytes() -> int | None:
    """Bytes of memory that the machine has; None where it does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not every system counts its pages
        return None
