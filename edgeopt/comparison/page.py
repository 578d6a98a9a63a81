"""A comparison as one page: nothing in it is loaded from elsewhere, and the same comparison gives the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from edgeopt.comparison.images import stored_images
from edgeopt.comparison.runs import ReadRun
from edgeopt.comparison.schema import (
    AccuracyChange,
    ChangedImage,
    ClassChange,
    FileChange,
    Judged,
    RunChange,
    RunComparison,
)
from edgeopt.comparison.sentences import (
    change_text,
    class_figure,
    class_text,
    figure_text,
    interval_text,
    outcome_text,
)
from edgeopt.comparison.shown import SAME_MEMORY, SAME_SIZE, bytes_tone, change_tone, kept_value, ratio_text
from edgeopt.report import figures
from edgeopt.report.html import data_uri, environment, moment
from edgeopt.report.style import style_sheet
from edgeopt.tasks.scores import three_digits

_FEW_CLASSES = 15
_MOST_LOST, _MOST_GAINED = 24, 12  # images shown of a file; the JSON has all of them
_NAME_PARTS = 2


@dataclass(frozen=True)
class _Whisker:
    """A difference and its interval on a scale that all files share, each place as a share of its width, 0 to 1."""

    low: float
    high: float
    at: float


@dataclass(frozen=True)
class _Image:
    """A test image that changed; `source` is a data URI, or None where the image is not at hand."""

    image: ChangedImage
    source: str | None
    short_name: str


@dataclass(frozen=True)
class _File:
    """A file with what the page draws of it."""

    change: FileChange
    whisker: _Whisker | None
    classes: tuple[ClassChange, ...]
    more_classes: tuple[ClassChange, ...]
    lost: tuple[_Image, ...]
    gained: tuple[_Image, ...]


def render_page(comparison: RunComparison, runs: Sequence[ReadRun]) -> str:
    """The page of a comparison; images come from the store of the first of its `runs`, where it has them."""
    templates = environment(Path(__file__).parent)
    templates.filters.update(tone=change_tone, ratio=ratio_text, kept=kept_value)
    shown = {image.place for change in comparison.changes for image in _shown_images(change)}
    pixels = stored_images(runs[0], sorted(shown))
    sources = {place: data_uri(image) for place, image in pixels.items()}
    return templates.get_template("page.html.j2").render(
        comparison=comparison,
        style=style_sheet(),
        title=f"{comparison.first.title} against {', '.join(run.title for run in comparison.runs[1:])}",
        changes=[(change, _files(change, sources)) for change in comparison.changes],
        finished={run.title: moment(run.finished) for run in comparison.runs},
        figure_text=figure_text,
        outcome_text=outcome_text,
        change_text=change_text,
        interval_text=interval_text,
        class_figure=class_figure,
        class_text=class_text,
        score=figures.score,
        grade=three_digits,
        probability=figures.probability,
        missed=_missed,
        bytes_tone=bytes_tone,
        same_size=SAME_SIZE,
        same_memory=SAME_MEMORY,
    )


def _missed(gates: Sequence[Judged]) -> int:
    return sum(gate.passed is False for gate in gates)


def _shown_images(change: RunChange) -> Iterator[ChangedImage]:
    for file in change.files:
        if file.accuracy:
            yield from (*file.accuracy.lost[:_MOST_LOST], *file.accuracy.gained[:_MOST_GAINED])


def _files(change: RunChange, sources: Mapping[int, str]) -> list[_File]:
    bounds = [abs(bound) for file in change.files for bound in (file.accuracy and file.accuracy.interval) or ()]
    farthest = max(bounds, default=0.0)
    return [_file(file, farthest, sources) for file in change.files]


def _file(file: FileChange, farthest: float, sources: Mapping[int, str]) -> _File:
    accuracy = file.accuracy
    if accuracy is None:
        return _File(file, None, (), (), (), ())
    changed = sorted(
        (each for each in accuracy.classes if each.lost or each.gained),
        key=lambda each: (each.after - each.before, -each.lost, each.name),
    )
    return _File(
        file,
        _whisker(accuracy, farthest),
        tuple(changed[:_FEW_CLASSES]),
        tuple(changed[_FEW_CLASSES:]),
        tuple(_image(image, sources) for image in accuracy.lost[:_MOST_LOST]),
        tuple(_image(image, sources) for image in accuracy.gained[:_MOST_GAINED]),
    )


def _whisker(accuracy: AccuracyChange, farthest: float) -> _Whisker | None:
    if accuracy.interval is None or not farthest:
        return None

    def place(difference: float) -> float:
        return 0.5 + 0.5 * difference / farthest

    low, high = accuracy.interval
    return _Whisker(place(low), place(high), place(accuracy.difference))


def _image(image: ChangedImage, sources: Mapping[int, str]) -> _Image:
    parts = PurePath(image.name).parts
    return _Image(image, sources.get(image.place), "/".join(parts[-_NAME_PARTS:]))
