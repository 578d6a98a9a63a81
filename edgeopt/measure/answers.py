"""What a file answers, in its own runtime, against the labels and against the program it was made from.

Runs in light processes: numpy and the runtime, no torch of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.errors import ExportError
from edgeopt.plugins.predictor import Predictor
from edgeopt.types import ExportResult, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Labels, Logits, Pixels
    from edgeopt.preprocessing import Preprocessing
    from edgeopt.progress import Progress
    from edgeopt.tasks.base import Task

_INT8_LEVELS = 256
_TIE_STEPS = 4  # each of two logits may be off by a step of the last layer and by a step of those before it
_FLOAT_ROUNDING = 1e-4  # of the logits' range: runtimes that add in another order differ by as much


@dataclass(frozen=True)
class Verification:
    """A file's answers on the test split.

    `agreement` is the share of images with the program's own answer, 0 to 1; `max_logit_difference` is absolute, in
    logits. `differing` counts the images with another answer, and `near_ties` those of them for which the program's
    logits of both answers lie within rounding.
    """

    test_accuracy: float
    accuracy_interval: tuple[float, float]
    agreement: float
    differing: int
    near_ties: int
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
    batch_size: int = 1,
) -> Logits:
    """Logits, float32 (n, classes), of an opened file on every image of `split`; `feed` is that of `feeder`.

    Every call has `batch_size` images, as an app's has: the last one is filled up with the first images.
    """
    import numpy as np  # heavy: not part of `edgeopt check`

    rows = []
    with progress.bar(label, len(split)) as bar:
        for start in range(0, len(split), batch_size):
            pixels = split.pixels([image % len(split) for image in range(start, start + batch_size)])
            rows.append(np.asarray(predictor.predict(feed(pixels)), dtype=np.float32))
            bar.advance(min(batch_size, len(split) - start))
    return np.concatenate(rows)[: len(split)]


def batch_warnings(exported: ExportResult, batch_size: int) -> tuple[str, ...]:
    """What must be known of a file whose answers, taken in calls of `batch_size` images, hold for such calls alone."""
    if not exported.batch_dependent:
        return ()
    images = "one image at once" if batch_size == 1 else f"{batch_size} images at once"
    warning = (
        f"an image's answer depends on the others in the call, so accuracy and agreement hold for {images}; "
        "feed it so in the app, or let measure.batch_size say otherwise."
    )
    return (warning,)


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
    score = task.score((logits,), labels)
    step = max(rounding_step(logits), rounding_step(reference))
    return Verification(
        test_accuracy=score.value,
        accuracy_interval=score.interval,
        agreement=task.agreement((logits,), (reference,)),
        differing=int((~task.alike((logits,), (reference,))).sum()),
        near_ties=task.near_ties((logits,), (reference,), (_TIE_STEPS * step,)),
        max_logit_difference=float(np.abs(logits - reference).max()),
        images=score.count,
    )


def rounding_step(logits: Logits) -> float:
    """How finely float logits (n, classes) are told apart, in logits.

    The logits of an int8 layer lie on a grid of at most 256 values, and the step is the distance between two of them.
    Other logits are float sums, whose last digits depend on the order of addition.
    """
    import numpy as np

    values = np.unique(logits)
    if not len(values) > 1:
        return 0.0
    in_float = _FLOAT_ROUNDING * float(values[-1] - values[0])
    return max(in_float, float(np.diff(values).min())) if len(values) <= _INT8_LEVELS else in_float
