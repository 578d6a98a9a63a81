"""The device's own meter during a job: beside the turns of each file, or in calls of their own after them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from edgeopt.devices.agent.messages import Message
from edgeopt.measure.energy import Meter, MeterError, MinuteMeter, energy_of, find_meter


@dataclass
class Metering:
    """What the meter says goes to the message of each file in `found`, or why it says nothing."""

    found: Mapping[int, Message]
    meter: Meter | None = None
    turns: MinuteMeter | None = None

    def begin(self, *, after: bool, beside: bool) -> None:
        """Looks for the meter where energy is asked for, and rests where it is asked `beside` the turns."""
        if not (after or beside):
            return
        try:
            meter = find_meter()
            self.turns = MinuteMeter.rested(meter) if beside else None
            self.meter = meter if after else None
        except MeterError as error:
            for told in self.found.values():
                told["energy_problem"] = str(error)

    def turn(self, number: int, seconds: float, call: Callable[[], int]) -> None:
        """Lets a file work for a turn; `call` gives the number of images."""
        if self.turns is None:
            call()
            return
        told = self.found[number]
        told.setdefault("turn_mj", []).append(self.turns.of(seconds, call))
        told["energy_problem"] = self.turns.problem

    def after(self, number: int, call: Callable[[float], int]) -> None:
        """Lets a file work for as long as the meter needs; `call` is given the seconds and gives the images."""
        if self.meter is None:
            return
        try:
            self.found[number]["energy"] = asdict(energy_of(self.meter, call))
        except MeterError as error:
            self.found[number]["energy_problem"] = str(error)
