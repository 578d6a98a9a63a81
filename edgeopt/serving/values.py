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

    `name` is what `/v1/predict` knows it by, `task` what it is for, which says what it answers: `Answer` of
    classification, `Found` of others. `size_bytes` counts the files that it cannot be opened without as well;
    `test_accuracy` is that of its run, 0 to 1. `image_size` is the edge of its input in pixels, or (height, width);
    `restarts` counts the processes that died on it.
    """

    name: str
    run: str
    export: str
    runtime: str
    precision: str
    role: str
    task: str
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
    """What a classifier takes an image for, and the milliseconds of each step.

    Confidences are those of the card: what the file gives is divided by its temperature first, where it has one. `top`
    has the five likeliest classes, or all where there are fewer, the likeliest first. `queue_ms` is the wait for a
    turn. `total_ms` runs from the moment when the whole image was there to the answer; the network is not in it.
    `alike` says whether the file named as `reference` answers the same; it is null where none is named, or the two
    cannot be compared.
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
    alike: bool | None


@dataclass(frozen=True)
class FoundLabel:
    """A label, the place of its class in the card, and its confidence, 0 to 1; `told` where that is at least the
    threshold of the card.
    """

    label: str
    index: int
    confidence: float
    threshold: float
    told: bool


@dataclass(frozen=True)
class FoundBox:
    """A box: its class, the place of that in the card, its score, 0 to 1, and corners in px of the image as it was
    sent, upright: x from the left edge, y from the upper one.
    """

    label: str
    index: int
    score: float
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class FoundClass:
    """A class of a mask, its place in the card, and its share of what the mask covers, 0 to 1."""

    label: str
    index: int
    share: float


@dataclass(frozen=True)
class FoundMask:
    """A class for each place. `png` is a grey PNG, base64, whose values are places of classes in the card; it is to be
    stretched over the box of the image, px, which is all that the file saw of it. `classes` begin with the largest.
    """

    png: str
    x1: float
    y1: float
    x2: float
    y2: float
    classes: tuple[FoundClass, ...]


@dataclass(frozen=True)
class Found:
    """What a file of any other task answers, with the milliseconds of each step as in `Answer`.

    `words` tell it. `width` and `height` are those of the image, upright, px. `labels`, `boxes` and `mask` are null
    where the task has none of the kind; the most confident come first. Of labels and boxes, those that are told are
    there, from the threshold of a label and from `shown_score` on; all that the file gave with `everything=true`.
    """

    file: str
    task: str
    words: str
    width: int
    height: int
    labels: tuple[FoundLabel, ...] | None
    boxes: tuple[FoundBox, ...] | None
    shown_score: float | None
    mask: FoundMask | None
    decode_ms: float
    preprocessing_ms: float
    file_ms: float
    queue_ms: float
    total_ms: float
    size_bytes: int
    alike: bool | None


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
