"""What the machine's own meter says of energy, where it has one that may be read: the processor's counters (RAPL), a
Jetson's power monitor (INA3221), or a battery that is being discharged.

This module goes to devices as it is: it imports the standard library alone, and
`edgeopt.plugins.energy_use`, which does the same.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edgeopt.plugins.energy_use import EnergyUse

_TOTAL_RAILS = ("VDD_IN", "POM_5V_IN", "5V_IN")
"""Names of the rail that feeds a whole Jetson; where there is none, its rails are added up."""
_UNUSED_RAILS = ("", "NC", "sum of shunt voltages")

SYSTEM = "EDGEOPT_SYSFS"
"""The variable that names where Linux's /sys is, for containers, which see one of their own without the processor's
counters.
"""


class MeterError(Exception):
    """There is no meter, or it may not be read; the text says what to do."""


@dataclass(frozen=True)
class Counter:
    """A counter of energy, in a file: microjoules that begin again at 0 after `range_uj`."""

    file: Path
    range_uj: int

    def read(self) -> int:
        """Where it stands, µJ."""
        return int(_text(self.file))


@dataclass(frozen=True)
class Meter:
    """A meter: `counters` of energy, or `power_w`, which tells the watts of now.

    `method` names it for people. Every `every_s` it is read, and nothing shorter than `least_s` is worth measuring.
    """

    method: str
    least_s: float
    every_s: float
    counters: tuple[Counter, ...] = ()
    power_w: Callable[[], float] | None = None


@dataclass
class Energy:
    """Joules and seconds between the first and the last reading of a meter."""

    joules: float = 0.0
    seconds: float = 0.0
    problem: str = ""
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def power_w(self) -> float:
        """The mean power. Raises `MeterError` where the meter could not be read to the end."""
        if self.problem or not self.seconds:
            raise MeterError(self.problem or "the meter was not read twice")
        return self.joules / self.seconds


def energy_of(meter: Meter, call: Callable[[float], int]) -> EnergyUse:
    """What an image takes: the machine rests for as long as the meter needs, and then `call(seconds)` works for as long
    and returns how many images that were.

    Raises `MeterError` where the meter tells nothing of the calls, and what `call` raises.
    """
    idle_w = resting_w(meter)
    with metered(meter) as busy:
        images = call(meter.least_s)
    return EnergyUse(
        mj_per_image=mj_per_image(meter, idle_w, busy, images),
        idle_w=idle_w,
        busy_w=busy.power_w,
        seconds=busy.seconds,
        images=images,
        method=f"{meter.method}, idle subtracted",
    )


def resting_w(meter: Meter) -> float:
    """What the machine takes while it does nothing for as long as the meter needs, W.

    Raises `MeterError` where the meter cannot be read.
    """
    with metered(meter) as idle:
        time.sleep(meter.least_s)
    return idle.power_w


def mj_per_image(meter: Meter, idle_w: float, busy: Energy, images: int) -> float:
    """What each of so many images took beyond what the machine takes resting, mJ.

    Raises `MeterError` where the meter tells nothing of them.
    """
    above_w = busy.power_w - idle_w
    if above_w <= 0:
        raise MeterError(
            f"{meter.method}: calls took no more than idling ({idle_w:.3g} W), so something else was at work"
        )
    return 1e3 * above_w * busy.seconds / images


@dataclass
class MinuteMeter:
    """A meter beside calls without a pause, after a rest that gave `idle_w`; `problem` says why a figure is missing."""

    meter: Meter
    idle_w: float
    problem: str = ""

    @classmethod
    def rested(cls, meter: Meter) -> MinuteMeter:
        """One whose machine rests now; whatever is to be called is open already. Raises `MeterError`."""
        return cls(meter, resting_w(meter))

    def of(self, seconds: float, call: Callable[[], int]) -> float | None:
        """What each image takes of those that `call` gives the number of, mJ; None where that is not known."""
        with metered(self.meter) as busy:
            images = call()
        if seconds < self.meter.least_s:
            self.problem = (
                f"{seconds:.3g} s are too short for {self.meter.method}, which needs {self.meter.least_s:g} s"
            )
            return None
        try:
            return mj_per_image(self.meter, self.idle_w, busy, images)
        except MeterError as error:
            self.problem = str(error)
            return None


@contextmanager
def metered(meter: Meter) -> Iterator[Energy]:
    """What is used within, by a thread that reads the meter; known when it is left."""
    energy = Energy()
    thread = threading.Thread(target=_watch, args=(meter, energy), daemon=True)
    thread.start()
    try:
        yield energy
    finally:
        energy._ended.set()  # noqa: SLF001 - of this module's own class
        thread.join()


def _watch(meter: Meter, energy: Energy) -> None:
    try:
        last_s, last_uj, last_w = time.monotonic(), _counted(meter), _power(meter)
        is_last = False
        while not is_last:
            is_last = energy._ended.wait(meter.every_s)  # noqa: SLF001
            now_s, now_uj, now_w = time.monotonic(), _counted(meter), _power(meter)
            for counter, before, after in zip(meter.counters, last_uj, now_uj, strict=True):
                energy.joules += (after - before + (counter.range_uj if after < before else 0)) / 1e6
            energy.joules += (last_w + now_w) / 2 * (now_s - last_s)
            energy.seconds += now_s - last_s
            last_s, last_uj, last_w = now_s, now_uj, now_w
    except (OSError, ValueError, MeterError) as error:
        energy.problem = f"{meter.method} could no longer be read: {error}"


def _counted(meter: Meter) -> list[int]:
    return [counter.read() for counter in meter.counters]


def _power(meter: Meter) -> float:
    return meter.power_w() if meter.power_w else 0.0


def find_meter(system: Path | None = None) -> Meter:
    """The machine's meter, by what Linux shows below `system`: its processor's, its board's, or its battery's. Where
    `system` is left out, it is what the environment names as `EDGEOPT_SYSFS`, or /sys.

    Raises `MeterError` where there is none that may be read.
    """
    system = system or Path(os.environ.get(SYSTEM) or "/sys")
    reasons = []
    for look in (_rapl, _jetson, _battery):
        try:
            if meter := look(system):
                return meter
        except MeterError as error:
            reasons.append(str(error))
    raise MeterError("; ".join(reasons) or "this machine shows no meter: no RAPL, no INA3221, no battery")


# ---- the processor's counters --------------------------------------------------------------------------------------


def _rapl(system: Path) -> Meter | None:
    """Packages, and memory beside them; cores and graphics are within a package. Of AMD's processors too."""
    zones = {zone: _text(zone / "name") for zone in sorted((system / "class" / "powercap").glob("intel-rapl:*"))}
    chosen = [zone for zone, name in zones.items() if name.startswith("package-")]
    chosen = [*chosen, *(zone for zone, name in zones.items() if chosen and name == "dram")]
    chosen = chosen or [zone for zone, name in zones.items() if name == "psys"]
    if not chosen:
        return None
    counters = []
    for zone in chosen:
        counter = Counter(zone / "energy_uj", int(_text(zone / "max_energy_range_uj")))
        try:
            counter.read()
        except PermissionError as error:
            raise MeterError(
                f"the processor's meter {counter.file} may be read by root alone: run `sudo chmod a+r "
                f"{system}/class/powercap/intel-rapl:*/energy_uj`, which holds until the next start"
            ) from error
        except (OSError, ValueError) as error:
            raise MeterError(f"the processor's meter {counter.file} cannot be read: {error}") from error
        counters.append(counter)
    return Meter(f"RAPL: {', '.join(zones[zone] for zone in chosen)}", 5.0, 0.5, tuple(counters))


# ---- a Jetson's power monitor --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rail:
    name: str
    volts: Path
    amperes: Path

    def power_w(self) -> float:
        return int(_text(self.volts)) * int(_text(self.amperes)) / 1e6  # mV, mA


def _jetson(system: Path) -> Meter | None:
    rails = []
    for monitor in sorted((system / "class" / "hwmon").glob("hwmon*")):
        if not (monitor / "name").is_file() or _text(monitor / "name") != "ina3221":
            continue
        for label in sorted(monitor.glob("in*_label")):
            number, name = label.name.removeprefix("in").removesuffix("_label"), _text(label)
            rail = _Rail(name, monitor / f"in{number}_input", monitor / f"curr{number}_input")
            if name not in _UNUSED_RAILS and rail.volts.is_file() and rail.amperes.is_file():
                rails.append(rail)
    chosen = [rail for rail in rails if rail.name in _TOTAL_RAILS][:1] or rails
    if not chosen:
        return None
    meter = Meter(
        f"INA3221: {', '.join(rail.name for rail in chosen)}",
        10.0,
        0.1,
        power_w=lambda: sum(rail.power_w() for rail in chosen),
    )
    return _tried(meter, "the board's power monitor")


# ---- a battery -----------------------------------------------------------------------------------------------------


def _battery(system: Path) -> Meter | None:
    """A battery of the machine itself, not of a mouse; one on its charger tells nothing of the machine."""
    for supply in sorted((system / "class" / "power_supply").glob("*")):
        kinds = [_text(supply / name) for name in ("type", "scope") if (supply / name).is_file()]
        if kinds[:1] != ["Battery"] or kinds[1:] == ["Device"]:
            continue

        def power_w(supply: Path = supply) -> float:
            status = _text(supply / "status")
            if status != "Discharging":
                raise MeterError(
                    f"battery {supply.name} is {status.lower()}, and only one that is being discharged tells what the "
                    "machine takes: unplug the charger"
                )
            if (supply / "power_now").is_file():
                return abs(int(_text(supply / "power_now"))) / 1e6  # µW
            return abs(int(_text(supply / "current_now"))) * int(_text(supply / "voltage_now")) / 1e12  # µA, µV

        return _tried(Meter(f"battery {supply.name}, the whole machine", 60.0, 1.0, power_w=power_w), "the battery")
    return None


def _tried(meter: Meter, what: str) -> Meter:
    try:
        _power(meter)
    except (OSError, ValueError) as error:
        raise MeterError(f"{what} cannot be read: {error}") from error
    return meter


def _text(file: Path) -> str:
    return file.read_text().strip()
