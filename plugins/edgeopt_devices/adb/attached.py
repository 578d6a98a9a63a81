"""Which phones there are, and which of them is meant."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeopt.plugins import DeviceError, Problem
from edgeopt_devices.adb.client import adb

_READY = "device"
_LINE = re.compile(r"^(?P<serial>\S+)\s+(?P<state>no permissions\b.*|\S+)(?P<rest>.*)$")
_NETWORK = re.compile(r"^[\w.\[\]:-]+:\d+$")
#: What adb calls a phone that cannot be used, and what to do about it.
_STATES = {
    "unauthorized": "unlock it and allow USB debugging for this computer",
    "authorizing": "unlock it and allow USB debugging for this computer",
    "offline": "attach it anew, or call `adb reconnect offline`",
    "connecting": "wait until it is there",
    "no permissions": "give this user access to it (apt install android-sdk-platform-tools-common) and attach it anew",
    "recovery": "start Android on it",
    "rescue": "start Android on it",
    "sideload": "start Android on it",
    "bootloader": "start Android on it",
}
_NONE = (
    "attach one, switch on USB debugging among its developer options, allow it for this computer, and see that "
    "`adb devices` lists it"
)


@dataclass(frozen=True)
class Attached:
    """A phone that adb lists. `state` is "device" for one that can be used."""

    serial: str
    state: str
    model: str

    def __str__(self) -> str:
        known = f"{self.serial} ({self.model})" if self.model else self.serial
        return known if self.state == _READY else f"{known}, which is {self.state}: {self.remedy}"

    @property
    def remedy(self) -> str:
        """What to do, where it cannot be used."""
        return next((what for state, what in _STATES.items() if self.state.startswith(state)), "attach it anew")


def attached(limit_s: float) -> list[Attached]:
    """The phones that adb lists. Raises `DeviceError` where it cannot."""
    started = adb(["start-server"], limit_s)
    if started.returncode:
        raise DeviceError(f"adb does not start: {_last(started.stdout)}", hint="see what `adb start-server` says")
    found = []
    for line in adb(["devices", "-l"], limit_s).stdout.splitlines():
        if line.startswith(("List of devices", "*")) or not (told := _LINE.match(line.strip())):
            continue
        model = re.search(r"\bmodel:(\S+)", told["rest"])
        found.append(Attached(told["serial"], told["state"].strip(), model[1] if model else ""))
    return found


def find(name: str, serial: str | None, limit_s: float) -> str:
    """The serial of the phone that is meant, which can be used.

    A phone that is named by its address is connected. Raises `DeviceError` with every phone that there is.
    """
    phones = attached(limit_s)
    if serial is not None and _NETWORK.match(serial):
        known = next((each for each in phones if each.serial == serial), None)
        if known is not None and known.state == "offline":
            adb(["disconnect", serial], limit_s)  # else it counts as connected
        if known is None or known.state == "offline":
            adb(["connect", serial], limit_s)
            phones = attached(limit_s)
    listed = "; ".join(map(str, phones))
    if serial is not None:
        meant = next((each for each in phones if each.serial == serial), None)
        if meant is None:
            there = f"attached: {listed}" if phones else "no phone is attached"
            raise DeviceError(Problem(f"{name}: it is away: no phone {serial} ({there})", _NONE))
    elif len(phones) == 1:
        meant = phones[0]
    elif phones:
        hint = f'name one, as in serial = "{phones[0].serial}"'
        raise DeviceError(Problem(f"{name}: {len(phones)} phones are attached and none is named: {listed}", hint))
    else:
        raise DeviceError(Problem(f"{name}: no phone is attached", _NONE))
    if meant.state != _READY:
        raise DeviceError(Problem(f"{name}: {meant.serial} is {meant.state}", meant.remedy))
    return meant.serial


def _last(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
