"""A file on a device: how it is taken there, and what its answers and times there are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.errors import UserError
from edgeopt.fingerprint import file_digest, parts_digest
from edgeopt.measure.latency import Latency, Start, summarize, summarize_means, turns
from edgeopt.options import MeasureSettings
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.device import DeviceFile, DeviceJob, FileOnDevice
from edgeopt.plugins.energy_use import EnergyUse
from edgeopt.preprocessing import Preprocessing
from edgeopt.tasks.scores import Score, led_by_accuracy
from edgeopt.types import ONLY_LOGITS, Card, TensorInfo

if TYPE_CHECKING:  # NumPy is heavy, and only named here
    from edgeopt.arrays import Outputs
    from edgeopt.tasks.base import Task

_STEPS = 6  # of a file beside its turns: its environment, its copy, its answers, its start, its load and its end


@dataclass(frozen=True, kw_only=True)
class DeviceAnswers:
    """What a file answered on a device for the first `images` test images.

    `agreement` is the share of them that it answers as the program it was made from, 0 to 1. The rest compares it with
    the same file on this machine: the images with another answer, `near_ties` those of them that rounding alone can
    decide, and the largest difference of a logit, 0 where all are the same bit for bit; None where it does not run
    here.
    """

    images: int
    test_accuracy: float | None = None
    agreement: float
    scores: tuple[Score, ...] = ()
    differing: int | None = None
    near_ties: int | None = None
    max_logit_difference: float | None = None

    def __post_init__(self) -> None:
        told = led_by_accuracy(self.scores, self.test_accuracy, None, self.images)
        object.__setattr__(self, "scores", told)  # frozen, and complete from here on

    @property
    def score(self) -> Score | None:
        """The primary score."""
        return self.scores[0] if self.scores else None


@dataclass(frozen=True, kw_only=True)
class FileThere:
    """What a file of a run, by its path below the run's folder, did on a device. Where it failed, `error` says why, and
    `note` what must be known of its figures, such as that there are no answers. A `refused` one was not taken there.
    `energy` is that of an image where it was asked for, and `energy_problem` says why it is not known.
    """

    file: str
    latency_ms: Latency | None = None
    peak_memory_bytes: int | None = None
    answers: DeviceAnswers | None = None
    error: str | None = None
    note: str | None = None
    refused: bool = False
    energy: EnergyUse | None = None
    energy_problem: str | None = None


@dataclass(frozen=True)
class ImagesThere:
    """The images that files are given on a device: a `.npy` of uint8 (n, height, width, channels), and its digest."""

    path: Path
    sha256: str

    @classmethod
    def of(cls, path: Path) -> ImagesThere:
        """Those in a file."""
        return cls(path, file_digest(path))


def refused(taken: TensorInfo | None, batch_size: int) -> str | None:
    """Why a file with this input is not called with so many images, or None."""
    if batch_size <= _largest(taken, free=batch_size):
        return None
    return f"{at_most(taken)}; export it for more, see max_batch of its exporter"


def at_most(taken: TensorInfo | None) -> str:
    """How many images a file with this input takes in a call, in words."""
    largest = _largest(taken, free=1)
    return f"it takes at most {'one image' if largest == 1 else f'{largest} images'} in a call"


def _largest(taken: TensorInfo | None, *, free: int) -> int:
    """The most images that a file with this input takes in a call; `free` for one that takes any number."""
    largest = taken.shape[0] if taken else 1
    return largest if isinstance(largest, int) else free


def device_file(
    name: str,
    path: Path,
    sha256: str | None,
    exporter: ExporterPlugin,
    preprocessing: Preprocessing,
    *,
    takes_pixels: bool,
    handed: Path,
    card: Card | None = None,
    answering: tuple[str, ...] = (),
) -> DeviceFile:
    """A file as a device takes it; `handed` holds what a process of this machine opens it from, and `answering` are the
    modules that make its answers there. `sha256` is that of the file with all that it cannot be opened without, None
    where it is not known; a device refuses what is no longer as it says.
    """
    own, *others = exporter.parts(path)
    digests = [file_digest(part) if part.is_file() else "" for part in (own, *others)]
    scale, offset = preprocessing.scale_and_offset()
    return DeviceFile(
        name=name,
        path=path,
        sha256=digests[0] if sha256 in (None, parts_digest(digests)) else sha256,
        scale=None if takes_pixels else scale,
        offset=None if takes_pixels else offset,
        on_device=exporter.on_device,
        handed=handed,
        card=card,
        answering=answering,
        companions=tuple(zip(others, digests[1:], strict=True)),
    )


def device_job(
    files: tuple[DeviceFile, ...], images: ImagesThere, settings: MeasureSettings, *, answers: bool, timed: bool
) -> DeviceJob:
    """A job of files that answer, are timed as the settings say, or both."""
    return DeviceJob(
        files=files,
        images=images.path,
        images_sha256=images.sha256,
        answers=answers,
        batch_size=settings.batch_size,
        threads=settings.threads,
        warmup=settings.warmup,
        turns=tuple((turn.calls, turn.seconds) for turn in turns(settings)) if timed else (),
        timeout_s=settings.timeout_s,
    )


def steps_there(settings: MeasureSettings) -> int:
    """How often a device tells of one file that answers and is timed."""
    return len(turns(settings)) + _STEPS


def latency_there(found: FileOnDevice, settings: MeasureSettings) -> Latency | None:
    """The figures of the times of a file's calls; None where it was not timed."""
    if found.error or not found.turns_ms:
        return None
    start = Start(found.load_ms, found.first_ms)
    if found.means_of:
        return summarize_means([mean_ms for (mean_ms,) in found.turns_ms], found.means_of, settings, start)
    return summarize(found.turns_ms, settings, start)


def energy_untold(found: FileOnDevice) -> str:
    """Why a device told no energy of a file that did not fail."""
    return found.energy_problem or "this kind of device tells none"


def judged(
    task: Task,
    outputs: Outputs,
    targets: Any,
    program: Outputs,
    here: Outputs | None,
    names: Sequence[str] = ONLY_LOGITS,
) -> tuple[DeviceAnswers | None, str | None]:
    """What answers of a device, an array for each output, are worth, or why they are worth nothing.

    `program` is what the program answered that the file was made from, and `here` the file on this machine, where it
    runs; `names` are those of the outputs.
    """
    import numpy as np

    from edgeopt.measure.answers import verify

    try:
        own = verify(task, outputs, program, targets, names)
        beside = verify(task, outputs, here, targets, names) if here is not None else None
    except UserError as error:
        return None, str(error.problems[0].message)
    same = here is not None and all(map(np.array_equal, outputs, here))
    answers = DeviceAnswers(
        images=own.images,
        test_accuracy=own.test_accuracy,
        scores=own.scores,
        agreement=own.agreement,
        differing=beside.differing if beside else None,
        near_ties=beside.near_ties if beside else None,
        max_logit_difference=0.0 if same else beside.max_logit_difference if beside else None,
    )
    return answers, None
