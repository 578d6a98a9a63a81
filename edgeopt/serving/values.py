"""What the server answers: the JSON of its API, a frozen dataclass each, and what becomes of a refused request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edgeopt.arrays import ImageSize


class FileState(StrEnum):
    """Whether a file answers."""

    OPENING = "opening"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class FileInfo:
    """A file that is served. `reason` says why one whose state is "failed" does not answer.

    `name` is what `/v1/predict` knows it by. `size_bytes` counts the files that it cannot be opened without as well;
    `test_accuracy` is that of its run, 0 to 1. `image_size` is the edge of its input in pixels, or (height, width);
    `restarts` counts the processes that died on it.
    """

    name: str
    run: str
    export: str
    runtime: str
    precision: str
    role: str
    size_bytes: int
    test_accuracy: float | None
    image_size: ImageSize
    state: FileState
    reason: str | None
    restarts: int


@dataclass(frozen=True)
class Guess:
    """A class and its share of the softmax, 0 to 1."""

    label: str
    confidence: float


@dataclass(frozen=True)
class Answer:
    """What a file takes an image for, and the milliseconds of each step.

    `top` has the five likeliest classes, or all where there are fewer, the likeliest first. `queue_ms` is the wait for
    a turn. `total_ms` runs from the moment when the whole image was there to the answer; the network is not in it.
    """

    file: str
    label: str
    confidence: float
    top: tuple[Guess, ...]
    decode_ms: float
    preprocessing_ms: float
    file_ms: float
    queue_ms: float
    total_ms: float
    size_bytes: int


@dataclass(frozen=True)
class SampleInfo:
    """A test image that a run kept, resized and cut as its files took it. `image` is its address, `truth` its class."""

    run: str
    index: int
    truth: str
    image: str


@dataclass(frozen=True)
class Health:
    """`status` is "ok" where every file answers, "partly" where some do, "opening" and "failed" where none does."""

    status: str
    files: dict[str, FileState]


@dataclass(frozen=True)
class Failure:
    """Why a request was not answered, and what to do about it."""

    error: str
    hint: str | None = None


class RefusalError(Exception):
    """A request that is not answered: the HTTP `status`, and after how many seconds to try again, where that helps."""

    def __init__(self, status: int, error: str, hint: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.failure = Failure(error, hint)
        self.retry_after_s = retry_after_s
