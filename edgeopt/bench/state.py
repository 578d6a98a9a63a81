"""How warm this machine is and how fast it is clocked, where the system tells."""

from __future__ import annotations

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
