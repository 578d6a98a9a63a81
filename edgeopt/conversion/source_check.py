"""Asks labelled images whether a source is fed as it was trained, and which of its outputs is which class."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.conversion.labelled import Answered, Labelling, answered, guessing, is_unnamed, listed
from edgeopt.errors import ExportError
from edgeopt.networks.capture import program_outputs
from edgeopt.option_values import GREY_MEAN, GREY_STD
from edgeopt.options import Options
from edgeopt.plugins.blame import blamed
from edgeopt.plugins.declarations import ReaderPlugin
from edgeopt.plugins.use import Use
from edgeopt.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from edgeopt.report.figures import percent
from edgeopt.tasks.base import Task
from edgeopt.tasks.scores import Score
from edgeopt.types import ModelState, Split

if TYPE_CHECKING:
    from edgeopt.arrays import Labels, Logits
    from edgeopt.progress import Progress

_NORMALIZATIONS: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...] = (
    ("pixels", (0.0,) * 3, (1 / 255,) * 3),
    ("unit", (0.0,) * 3, (1.0,) * 3),
    ("symmetric", (0.5,) * 3, (0.5,) * 3),
    ("ImageNet's", IMAGENET_MEAN, IMAGENET_STD),
)
"""Scales that networks are trained with, as mean and deviation of pixels scaled to 0..1."""


@dataclass(frozen=True)
class Judged:
    """What labelled images say of a source, and the names that its outputs may take from the data set."""

    answered: Answered | None = None
    names: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()


def judge(
    reader: Use[ReaderPlugin],
    file: Path,
    source: ModelState,
    shown: Split,
    known: Labelling,
    logits: Logits,
    progress: Progress,
) -> Judged:
    """Whether a source tells the classes of the data set apart. Names of a data set that it does not know are not its.

    Raises `ExportError` where it does, fed on another scale.
    """
    task, labels = source.task, shown.labels
    found = answered(task, logits, labels, known.names)
    if other := _order_of_outputs(logits, labels, task):
        order, score = other
        names = json.dumps([known.names[each] for each in order], ensure_ascii=False)
        said = (
            f"the outputs of {file.name} stand for the classes in another order: with "
            f"--set 'source.classes={names}' it is right for {percent(score.value)}"
        )
        return Judged(found, verdicts=(said,))
    if not found.doubt:
        return Judged(found, known.names)
    best: tuple[Score, str] | None = None
    for told, options in _other_scales(reader, source.preprocessing.channels):
        with blamed(reader.plugin, "read"):
            again = reader.plugin.read(file, options)
        score = task.score(program_outputs(again, shown, progress, f"answers of the source, {told}"), labels)
        if _is_the_cure(score, found.score, labels) and (best is None or score.value > best[0].value):
            best = score, told
    if best:
        raise _fed_wrongly(file, found.doubt, *best)
    unnamed = ", which are not written into the file" if is_unnamed(source.classes) else ""
    said = (
        f"{file.name} {found.doubt}: either it was not trained for {listed(known.names)}{unnamed}, "
        "or it is fed otherwise than it was trained: see source.mean, source.std and source.classes"
    )
    return Judged(found, verdicts=(said,))


def _other_scales(reader: Use[ReaderPlugin], channels: int) -> Iterator[tuple[str, Options]]:
    """Other scales of images than a source was read with: what to write for each, and the reader's options with it."""
    options, scale = reader.options, reader.plugin.scale_option
    for name, *statistics in _NORMALIZATIONS:
        mean, std = statistics if channels > 1 else _of_grey(*statistics)
        if scale and name in ("pixels", "unit", "symmetric") and getattr(options, scale) != name:
            yield f"--set source.{scale}={name}", options.model_copy(update={scale: name})
        elif not scale and {"mean", "std"} <= set(type(options).model_fields):
            update = {"mean": mean, "std": std}
            if any(getattr(options, each) != value for each, value in update.items()):
                written = {each: f"[{','.join(map(str, value))}]" for each, value in update.items()}
                told = " ".join(f"--set source.{each}={value}" for each, value in written.items())
                yield told, options.model_copy(update=update)


def _of_grey(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Statistics of three channels as those of one."""
    return (GREY_MEAN, GREY_STD) if mean == IMAGENET_MEAN else (mean[:1], std[:1])


def _is_the_cure(found: Score, before: Score, labels: Labels) -> bool:
    """Whether another way to feed a source answers so much better that it was meant."""
    return found.value >= (1 + guessing(labels)) / 2 and found.interval[0] > before.interval[1]


def _fed_wrongly(source: Path, doubt: str, found: Score, told: str) -> ExportError:
    """The error of a source that is fed on a scale that it was not trained with."""
    share = percent(found.value)
    return ExportError(
        f"{source.name} {doubt}, as it is fed; on another scale it is right for {share} of them. Nothing was written",
        hint=f"add {told}",
    )


def _order_of_outputs(logits: Logits, labels: Labels, task: Task) -> tuple[tuple[int, ...], Score] | None:
    """The class that each output stands for, and the score with it, where labels tell another order than was taken.

    None where outputs and classes do not go together one to one, or the order that was taken is as good.
    """
    given = logits.argmax(axis=1)
    classes = logits.shape[1]
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (given, labels), 1)
    order = counts.argmax(axis=1)
    if len(set(order.tolist())) != classes or (order == np.arange(classes)).all():
        return None
    moved = np.empty_like(logits)
    moved[:, order] = logits
    found = task.score((moved,), labels)
    if not _is_the_cure(found, task.score((logits,), labels), labels):
        return None
    return tuple(order.tolist()), found
