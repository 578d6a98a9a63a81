"""Devices on which files answer and are timed: what they are given and give back, and the declaration of a kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from edgeopt.plugins.base import Plugin
from edgeopt.plugins.energy_use import EnergyUse

if TYPE_CHECKING:  # NumPy is heavy, and only named here
    from edgeopt.arrays import Outputs
    from edgeopt.types import Card


@dataclass(frozen=True)
class OnDevice:
    """How a file is opened where edgeopt is not.

    `modules` are taken there as they are, and import the standard library, NumPy, the runtime and one another alone.
    The first has `open_file(path, threads)`, a function that gives a `Predictor` for calls that the file takes as they
    are. `requires` names the distributions that they import: the device gets the versions that are installed here.
    """

    modules: tuple[str, ...]
    requires: tuple[str, ...]


@dataclass(frozen=True)
class DeviceFile:
    """A file that is to run on a device; `name` is what people call it, `sha256` the hexadecimal digest of its bytes.

    With `scale` and `offset`, three numbers each, its input is pixel * scale + offset; None where it takes pixels.
    `on_device` opens it where edgeopt is not, and `handed` is a file from which a process with edgeopt opens it, see
    `edgeopt.devices.handed_file`; either may be missing. `card` tells whoever feeds it without Python what it takes.
    `answering` are the modules that make answers of its outputs where edgeopt is not, see `TaskPlugin.device_modules`;
    none where its task has none. `companions` are files beside it, each with its digest, that it cannot be opened
    without: they lie beside it there as well, under their own names.
    """

    name: str
    path: Path
    sha256: str
    scale: tuple[float, ...] | None = None
    offset: tuple[float, ...] | None = None
    on_device: OnDevice | None = None
    handed: Path | None = None
    card: Card | None = None
    answering: tuple[str, ...] = ()
    companions: tuple[tuple[Path, str], ...] = ()


@dataclass(frozen=True)
class WholeWay:
    """An image file that goes the whole way through each file: it is decoded, turned upright, resized, cut and scaled,
    the file is called, and an answer is made. `runs` times count, after `warmup` that do not.
    """

    image: Path
    sha256: str
    warmup: int
    runs: int


@dataclass(frozen=True)
class DeviceJob:
    """What a device is to do: answer for images, then call the files in turns and time that.

    `images` is a `.npy` of uint8 (n, height, width, channels). Every file answers for all of them, `batch_size` in a
    call, where `answers` is set; calls that are timed get the first of them. `turns` are the least calls and the least
    seconds of each turn; without any, nothing is timed. With `energy`, the device's meter is asked after them, and with
    `turn_energy` during them. A file that gives no sign of life for `timeout_s` is given up.
    With `whole`, each file takes an image the whole way after that; a kind of device that cannot do it leaves it out.
    """

    files: tuple[DeviceFile, ...]
    images: Path
    images_sha256: str
    answers: bool = True
    batch_size: int = 1
    threads: int = 1
    warmup: int = 10
    turns: tuple[tuple[int, float], ...] = ()
    timeout_s: float = 600.0
    energy: bool = False
    turn_energy: bool = False
    whole: WholeWay | None = None


@dataclass(frozen=True, eq=False)
class FileOnDevice:
    """What a file did on a device: its outputs, as a predictor gives them, and the ms of its calls in each turn.

    `load_ms` is what opening it took, with the runtime's code in memory already, `first_ms` the first call. For each
    turn, `states` has temperature, °C, and clock, MHz, at its end, None where the device does not tell. `energy` is
    that of an image where it was asked for, `turn_mj` what an image took in each turn, mJ, None where the turn is too
    short for the meter, and `energy_problem` says why something is not known. Where the file failed, `error` says why.

    Where nobody there tells single calls, each turn has one time, the mean of as many calls as `means_of` says for it.
    `peak_memory_bytes` is 0 where nobody tells it. `note` is what whoever reads the figures must know, such as that
    there are no answers.

    `whole_ms` has, of each time that an image went the whole way, what decoding it, preparing it, the file and making
    an answer took; where that was asked for and is not known, `no_whole` says why.
    """

    outputs: Outputs | None = None
    turns_ms: tuple[tuple[float, ...], ...] = ()
    load_ms: float = 0.0
    first_ms: float = 0.0
    peak_memory_bytes: int = 0
    states: tuple[tuple[float | None, float | None], ...] = ()
    error: str | None = None
    means_of: tuple[int, ...] = ()
    note: str | None = None
    energy: EnergyUse | None = None
    energy_problem: str = ""
    whole_ms: tuple[tuple[float, ...], ...] = ()
    no_whole: str | None = None
    turn_mj: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class DeviceFacts:
    """What a device says of itself; None where it does not tell.

    `machine` is the architecture ("aarch64"), `governor` how the clock of its cores is set ("performance"), and
    `versions` are those of the runtimes that are there for edgeopt. `python` is empty where none is needed.
    """

    processor: str
    machine: str
    cores: int
    system: str
    python: str
    governor: str | None = None
    clock_mhz: float | None = None
    memory_bytes: int | None = None
    free_bytes: int | None = None
    temperature_c: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


class Device(Protocol):
    """A device that is there, and held for one user of it: another waits. Each of these raises `DeviceError` when it
    is away, or when it cannot do what it is asked for.
    """

    def describe(self) -> DeviceFacts:
        """What it is, and how it is now."""
        ...

    def put(self, file: Path, sha256: str) -> None:
        """Takes a file there, unless one of the same bytes is there already; nothing is there by half.

        Raises `DeviceError` where the file has another digest.
        """
        ...

    def run(self, job: DeviceJob, tell: Callable[[str], None]) -> Mapping[str, FileOnDevice]:
        """Does a job, and gives what each file did by its name; a file that fails takes no other with it.

        `tell` is called with a few words at each step. What a lost connection has cost is done again, and no more.
        """
        ...

    def clean(self) -> None:
        """Takes everything of edgeopt's away from the device."""
        ...

    def close(self) -> None:
        """Ends whatever is at work there, and lets the next user have it. What was put there stays."""
        ...


def _any_word(_text: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class DevicePlugin(Plugin):
    """A kind of device. `open(options, name, waiting)` gives the `Device` that the options describe.

    `name` is what people call it, for messages. `waiting` is told in a few words why it takes time, as when somebody
    else has the device. Nothing but its own folder may be left there.
    """

    kind: ClassVar[str] = "device"
    plural: ClassVar[str] = "kinds of devices"
    hook: ClassVar[str] = "edgeopt_devices"
    header: ClassVar[str] = "[[devices]]"

    open: Callable[[Any, str, Callable[[str], None]], Device] = field(kw_only=True)

    def opened(self, options: Any, name: str, waiting: Callable[[str], None] = _any_word) -> Device:
        """What `open` gives."""
        return self.open(options, name, waiting)
