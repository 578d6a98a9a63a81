"""What a file answers, in its own runtime, against the labels and against the program it was made from.

Runs in light processes: numpy and the runtime, no torch of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeopt.arrays import as_outputs, in_parts, joined, of_images
from edgeopt.errors import ExportError
from edgeopt.plugins.predictor import Predictor
from edgeopt.tasks.scores import Score
from edgeopt.types import ONLY_LOGITS, ExportResult, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Outputs, Pixels
    from edgeopt.preprocessing import Preprocessing
    from edgeopt.progress import Progress
    from edgeopt.tasks.base import Task

_INT8_LEVELS = 256
_TIE_STEPS = 4  # each of two logits may be off by a step of the last layer and by a step of those before it
_FLOAT_ROUNDING = 1e-4  # of the logits' range: runtimes that add in another order differ by as much


@dataclass(frozen=True)
class OutputDifference:
    """How far one output is from what it should be: the largest difference of a number, and that as a share of the
    range that the numbers should have. Of integers, such as classes, both are the share that differs.
    """

    name: str
    largest: float
    share: float


@dataclass(frozen=True)
class Verification:
    """A file's answers on the test split.

    `scores` are the task's, and `test_accuracy` is the one of that name, None where the task has none.
    `agreement` is the share of images with the program's own answer, 0 to 1; `max_logit_difference` is absolute, of a
    logit or of any other number that the file gives, and `outputs` says it for each output where there are several.
    `differing` counts the images with another answer, and `near_ties` those of them for which the program's
    logits of both answers lie within rounding.
    """

    test_accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    agreement: float
    differing: int
    near_ties: int
    max_logit_difference: float
    images: int
    outputs: tuple[OutputDifference, ...] = ()
    scores: tuple[Score, ...] = ()


def feeder(holds: str, preprocessing: Preprocessing) -> Callable[[Pixels], NDArray[np.float32] | Pixels]:
    """What turns images, uint8 (n, height, width, channels), into the batch that a file's predictor takes; `holds` is
    its input's.
    """
    return (lambda pixels: pixels) if holds == "pixels" else preprocessing.normalize


def file_outputs(
    predictor: Predictor,
    split: Split,
    feed: Callable[[Pixels], NDArray[np.float32] | Pixels],
    progress: Progress,
    label: str,
    batch_size: int = 1,
) -> Outputs:
    """What an opened file answers for every image of `split`, an array for each output; `feed` is that of `feeder`.

    Every call has `batch_size` images, as an app's has: the last one is filled up with the first images.
    """
    rows = []
    with progress.bar(label, len(split)) as bar:
        for start in range(0, len(split), batch_size):
            pixels = split.pixels([image % len(split) for image in range(start, start + batch_size)])
            rows.append(as_outputs(predictor.predict(feed(pixels))))
            bar.advance(min(batch_size, len(split) - start))
    return of_images(joined(rows), slice(len(split)))


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


def differences(
    outputs: Outputs, reference: Outputs, names: Sequence[str] = ONLY_LOGITS, origin: str = "program"
) -> tuple[OutputDifference, ...]:
    """How far each output of a file is from the one that it should be; `origin` says in a word of what.

    Raises `ExportError`, naming the output, when the file gives another number of them, one of another shape, or
    numbers that are not finite.
    """
    import numpy as np  # heavy: not part of `edgeopt check`

    if len(outputs) != len(reference):
        raise ExportError(f"the file returns {len(outputs)} outputs, its {origin} {len(reference)}")
    found = []
    for name, own, other in zip(names, outputs, reference, strict=True):
        what = "logits" if tuple(names) == ONLY_LOGITS else f"output {name!r}"
        if own.shape != other.shape:
            raise ExportError(f"the file returns {what} of shape {own.shape}, its {origin} {other.shape}")
        if own.dtype.kind != "f" or other.dtype.kind != "f":
            unlike = sum(int((one != two).sum()) for one, two in in_parts(own, other))
            share = unlike / own.size if own.size else 0.0
            found.append(OutputDifference(name, share, share))
            continue
        if count := sum(int((~np.isfinite(one)).reshape(len(one), -1).any(axis=1).sum()) for (one,) in in_parts(own)):
            where = "" if tuple(names) == ONLY_LOGITS else f" in its {what}"
            raise ExportError(
                f"the file returns numbers that are not finite{where} for {count} of {len(own)} images",
                hint="a value overflows in this runtime's arithmetic; try another precision",
            )
        apart = [np.abs(one - two).max() for one, two in in_parts(own, other)] if own.size else [0.0]
        largest = float(np.max(apart))
        found.append(OutputDifference(name, largest, largest / span_of(other)))
    return tuple(found)


def span_of(values: NDArray[Any]) -> float:
    """The range of an output; a tenth of the largest where its numbers are closer together, as an untrained model's
    softmax: their rounding is no difference.
    """
    import numpy as np  # as above

    if not values.size:
        return 1.0
    return max(float(np.ptp(values)), 0.1 * max(float(values.max()), -float(values.min())), 1e-12)


def verify(
    task: Task, outputs: Outputs, reference: Outputs, targets: Any, names: Sequence[str] = ONLY_LOGITS
) -> Verification:
    """Compares each output of a file with the program's, and what they mean with the targets; `names` are those of the
    file's outputs, or of the program's, where the file may end at answers and so give others.

    Raises `ExportError` as `differences` does.
    """
    if len(names) != len(outputs):
        names = [f"output {place}" for place in range(len(outputs))]
    apart = differences(outputs, task.likened(outputs, reference), names)
    scores = task.scores(outputs, targets)
    steps = [max(map(rounding_step, pair)) for pair in zip(outputs, reference, strict=False)]
    return Verification(
        test_accuracy=scores.accuracy.value if scores.accuracy else None,
        accuracy_interval=scores.accuracy.interval if scores.accuracy else None,
        agreement=task.agreement(outputs, reference),
        differing=int((~task.alike(outputs, reference)).sum()),
        near_ties=task.near_ties(outputs, reference, [_TIE_STEPS * step for step in steps]),
        max_logit_difference=max(each.largest for each in apart),
        images=len(outputs[0]),
        outputs=apart if len(apart) > 1 else (),
        scores=scores.all,
    )


def rounding_step(values: NDArray[Any]) -> float:
    """How finely the numbers of an output are told apart; integers are, each from the next.

    The numbers of an int8 layer lie on a grid of at most 256 values, and the step is the distance between two of them.
    Others are float sums, whose last digits depend on the order of addition.
    """
    import numpy as np

    if values.dtype.kind != "f":
        return 0.0
    known = values[:0].ravel()
    for (part,) in in_parts(values):
        known = np.union1d(known, part)
        if len(known) > _INT8_LEVELS:
            return _FLOAT_ROUNDING * float(values.max() - values.min())
    if not len(known) > 1:
        return 0.0
    return max(_FLOAT_ROUNDING * float(known[-1] - known[0]), float(np.diff(known).min()))
