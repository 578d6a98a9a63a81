"""What a file answers, in its own runtime, against the labels and against the program it was made from.

Runs in light processes: numpy and the runtime, no torch of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.errors import ExportError
from edgeopt.types import Predictor, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Labels, Logits, Pixels
    from edgeopt.preprocessing import Preprocessing
    from edgeopt.progress import Progress
    from edgeopt.tasks.base import Task

BATCH_SIZE = 16


@dataclass(frozen=True)
class Verification:
    """A file's answers on the test split.

    `agreement` is the share of images with the program's own answer, 0 to 1; `max_logit_difference` is absolute, in
    logits.
    """

    test_accuracy: float
    accuracy_interval: tuple[float, float]
    agreement: float
    max_logit_difference: float
    images: int


def feeder(holds: str, preprocessing: Preprocessing) -> Callable[[Pixels], NDArray[np.float32] | Pixels]:
    """What turns images, uint8 (n, height, width, 3), into the batch that a file's predictor takes; `holds` is its
    input's.
    """
    return (lambda pixels: pixels) if holds == "pixels" else preprocessing.normalize


def file_logits(
    predictor: Predictor,
    split: Split,
    feed: Callable[[Pixels], NDArray[np.float32] | Pixels],
    progress: Progress,
    label: str,
) -> Logits:
    """Logits, float32 (n, classes), of an opened file on every image of `split`; `feed` is that of `feeder`."""
    import numpy as np  # heavy: not part of `edgeopt check`

    rows = []
    with progress.bar(label, len(split)) as bar:
        for start in range(0, len(split), BATCH_SIZE):
            pixels = split.pixels(range(start, min(start + BATCH_SIZE, len(split))))
            rows.append(np.asarray(predictor.predict(feed(pixels)), dtype=np.float32))
            bar.advance(len(pixels))
    return np.concatenate(rows)


def verify(task: Task, logits: Logits, reference: Logits, labels: Labels) -> Verification:
    """Compares a file's logits with the program's and with the labels.

    Raises `ExportError` when the file answers in another shape, or with numbers that are not finite.
    """
    import numpy as np

    if logits.shape != reference.shape:
        raise ExportError(f"the file returns logits of shape {logits.shape}, its program {reference.shape}")
    if not np.isfinite(logits).all():
        count = int((~np.isfinite(logits)).any(axis=1).sum())
        raise ExportError(
            f"the file returns numbers that are not finite for {count} of {len(logits)} images",
            hint="a value overflows in this runtime's arithmetic; try another precision",
        )
    score = task.score(logits, labels)
    return Verification(
        test_accuracy=score.value,
        accuracy_interval=score.interval,
        agreement=task.agreement(logits, reference),
        max_logit_difference=float(np.abs(logits - reference).max()),
        images=score.count,
    )
