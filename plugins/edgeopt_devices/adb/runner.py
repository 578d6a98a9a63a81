"""What has files on a phone: an app, or a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgeopt.plugins import DeviceFile, DeviceJob

if TYPE_CHECKING:
    from edgeopt.plugins import Outputs, Pixels


@dataclass(frozen=True)
class Timed:
    """What a turn of calls took, ms. Where nobody tells single calls, `times_ms` is their mean alone, and `means_of`
    their number.
    """

    times_ms: tuple[float, ...]
    load_ms: float
    first_ms: float
    means_of: int | None = None
    peak_memory_bytes: int = 0


@dataclass(frozen=True)
class Answered:
    """The file's outputs, None where the runner gives none; and what must be known of them."""

    outputs: Outputs | None
    note: str | None = None


class Runner(Protocol):
    """Each of these raises `DeviceError` for what is wrong with one file, and `ConnectionLostError` as usual."""

    @property
    def versions(self) -> Mapping[str, str]:
        """What it is, for the description of the phone."""
        ...

    def require(self, file: DeviceFile, job: DeviceJob) -> None:
        """Raises `DeviceError` for a file that it does not take, and for what it cannot be asked for."""
        ...

    def answers(self, file: DeviceFile, pixels: Pixels, job: DeviceJob, aside: Path) -> Answered:
        """What a file answers for some images, uint8 (n, height, width, channels); `aside` is a folder here."""
        ...

    def timed(self, file: DeviceFile, calls: int, seconds: float, job: DeviceJob) -> Timed:
        """At least so many calls that take at least so long."""
        ...
