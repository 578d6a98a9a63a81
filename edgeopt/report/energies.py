"""The energy of an image beside its method, or why it is not known. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edgeopt.plugins.energy_use import EnergyUse
from edgeopt.report import figures


def told(energy: EnergyUse | None, unit: str = " mJ") -> str:
    """What an image takes, as in "4.2 mJ"."""
    return figures.millijoules(energy.mj_per_image if energy else None, unit)


def methods(energies: Iterable[EnergyUse | None]) -> str:
    """By what these were measured, each method once; empty where none was."""
    return "; ".join(dict.fromkeys(each.method for each in energies if each))


def untold(problems: Iterable[tuple[str, str | None]], where: str = "") -> Iterator[str]:
    """A sentence for each reason why energies are not known, of files by their names; `where` is a device, this machine
    where it is left out. A file without a problem has None.
    """
    files: dict[str, list[str]] = {}
    for name, problem in problems:
        if problem is not None:
            files.setdefault(problem, []).append(name)
    for problem, names in files.items():
        start = f"{where}: the" if where else "The"
        yield f"{start} energy of an image in {', '.join(names)} is not known: {problem} (--measure-again asks again)."
