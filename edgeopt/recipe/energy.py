"""Energy as a recipe asks for it: there is a meter, and what is bounded is measured. Light."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeopt.errors import Problem
from edgeopt.options import MeasureSettings
from edgeopt.recipe.gates import Gates
from edgeopt.recipe.read import DeviceStep
from edgeopt.toml_lines import Key

if TYPE_CHECKING:
    from edgeopt.recipe.lookup import Lookup

ENERGY = "energy_mj"
"""What gates and goals call the energy of an image."""

_SWITCH: Key = ("measure", "energy")


def check_energy(lookup: Lookup, measure: MeasureSettings, gates: Gates, devices: Sequence[DeviceStep]) -> None:
    """Notes energy that is asked for where no meter can tell it, and gates on energy that is not asked for."""
    if measure.energy_here:
        from edgeopt.measure.energy import MeterError, find_meter  # a check without it need not wait for this

        try:
            find_meter()
        except MeterError as error:
            elsewhere = 'energy = "devices" asks theirs alone' if devices else "[[devices]] may have one"
            hint = f"or measure where there is one: {elsewhere}; see docs/bench.md#energy"
            lookup.problems.append(Problem(f"measure.energy: {error}", hint, lookup.source.locate(_SWITCH)))
    elif measure.energy_there and not devices:
        message = 'measure.energy: "devices" asks the meters of [[devices]], and there are none'
        hint = "add a [[devices]] table, or ask this machine's with energy = true"
        lookup.problems.append(Problem(message, hint, lookup.source.locate(_SWITCH)))
    if gates.energy_mj is not None and not measure.energy_here:
        _note(lookup, ("gates", ENERGY), needs_this_machine=True)
    for name, there in gates.devices.items():
        if there.energy_mj is not None and not measure.energy_there:
            _note(lookup, ("gates", "devices", name, ENERGY))


def unasked(what: str, *, needs_this_machine: bool) -> tuple[str, str]:
    """What is wrong with a bound on energy that nobody measures, and what to do."""
    if needs_this_machine:
        return f"{what}: the energy of an image is not measured on this machine", "set energy = true in [measure]"
    return f"{what}: the energy of an image is not measured there", 'set energy = true, or "devices", in [measure]'


def _note(lookup: Lookup, key: Key, *, needs_this_machine: bool = False) -> None:
    message, hint = unasked(".".join(map(str, key)), needs_this_machine=needs_this_machine)
    lookup.problems.append(Problem(message, hint, lookup.source.locate(key)))
