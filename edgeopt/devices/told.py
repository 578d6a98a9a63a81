"""What the agent tells, as the values that a device gives."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import TYPE_CHECKING

from edgeopt.arrays import load_outputs
from edgeopt.devices.connection import Message
from edgeopt.plugins.device import DeviceFacts, FileOnDevice
from edgeopt.plugins.energy_use import EnergyUse

if TYPE_CHECKING:
    from edgeopt.arrays import Outputs


def facts_told(message: Message) -> DeviceFacts:
    """What a device says of itself."""
    return DeviceFacts(**{name: message[name] for name in DeviceFacts.__dataclass_fields__})


def with_told(file: FileOnDevice, message: Message) -> FileOnDevice:
    """What a file did, with what the agent tells of it now."""
    match message["event"]:
        case "answers":
            return replace(file, outputs=_outputs(message["npz"]))
        case "times":
            return replace(
                file,
                turns_ms=tuple(tuple(times) for times in message["turns_ms"]),
                states=tuple((temperature, clock) for temperature, clock in message["states"]),
                **{name: message[name] for name in ("load_ms", "first_ms", "peak_memory_bytes")},
                energy=EnergyUse(**message["energy"]) if "energy" in message else None,
                energy_problem=message.get("energy_problem", ""),
                turn_mj=tuple(message.get("turn_mj", ())),
            )
        case "whole":
            return replace(file, whole_ms=tuple(tuple(parts) for parts in message["times_ms"]))
        case "no-whole":
            return replace(file, no_whole=message["message"])
        case _:
            return replace(file, error=message["message"])


def _outputs(encoded: str) -> Outputs:
    return load_outputs(io.BytesIO(base64.b64decode(encoded)))
