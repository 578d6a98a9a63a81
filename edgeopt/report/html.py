"""The report as one page: nothing in it is loaded from elsewhere, and the same report gives the same bytes."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from edgeopt.arrays import Json, size_in_words
from edgeopt.measure.on_device import FileThere
from edgeopt.report import energies, figures, plots
from edgeopt.report.answers import score_called, shown_file
from edgeopt.report.compare import Comparison, compare, comparisons, title
from edgeopt.report.confusion import condense, worst_pairs
from edgeopt.report.devices import described, latencies_there, there
from edgeopt.report.drawing import Plot
from edgeopt.report.latencies import LatencyPair
from edgeopt.report.schema import MeasuredDevice, Report, Row, Sample
from edgeopt.report.style import style_sheet
from edgeopt.report.verdicts import SMOKE
from edgeopt.tasks.sections import Section, SectionImage
from edgeopt.types import PassRecord, Role

if TYPE_CHECKING:
    from edgeopt.arrays import Pixels

_IMAGE_SIDE = 128  # px; larger images are shown no larger, and would only make the page heavy
_MOST_IN_A_LINE = 4  # entries of a fact that is a table; more get the whole width
_FEW_CLASSES = 20
_WORST_CLASSES = 14  # of more classes than a few, so many are shown in the confusion matrix


@dataclass(frozen=True)
class _Bars:
    """A file's figures as shares of the largest in the run, 0 to 1, for bars."""

    row: Row
    size: float | None
    latency: float | None


@dataclass(frozen=True)
class _There:
    """A file on a device; `speed` is that of the float file of the same export beside it."""

    row: Row
    file: FileThere
    speed: LatencyPair | None


@dataclass(frozen=True)
class _OnDevice:
    """A device with its files; `said` is what it is, in a line."""

    device: MeasuredDevice
    said: str
    files: tuple[_There, ...]


@dataclass(frozen=True)
class _Shown:
    """A test image beside what a file took it for; `source` is a data URI, or None where the
    image is not at hand.
    """

    source: str | None
    truth: str
    answer: str
    confidence: float
    right: bool
    float_answer: str | None


@dataclass(frozen=True)
class _SectionImage:
    """An image of a section; `source` is a data URI, or None where the image is not at hand."""

    shown: SectionImage
    source: str | None


@dataclass(frozen=True)
class _Section:
    """What a task shows of a file's answers, with its plots drawn."""

    section: Section
    plots: tuple[Plot, ...]
    images: tuple[_SectionImage, ...]


@dataclass(frozen=True)
class _Pass:
    record: PassRecord
    plots: tuple[Plot, ...]


def render_html(report: Report, images: Mapping[int, Pixels] | None = None, recipe_text: str = "") -> str:
    """The page of a report.

    `images` are those of `report.samples` by test index, uint8 (height, width, 3); `recipe_text` is the recipe as its
    author wrote it.
    """
    detailed = shown_file(report.rows)
    confusion = detailed.confusion if detailed else None
    classes = report.dataset.classes
    scores = detailed.per_class if detailed else ()
    if len(scores) > _FEW_CLASSES:
        scores = tuple(sorted(scores, key=lambda score: (score.recall is None, score.recall)))
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            title=title,
            style=style_sheet(),
            notices=[sentence for sentence in report.verdicts if sentence == SMOKE],
            sentences=[sentence for sentence in report.verdicts if sentence != SMOKE],
            finished=moment(report.finished),
            files=[(row, compare(row, report.rows)) for row in report.rows],
            cards=_cards(report.rows),
            bars=_bars(report.rows),
            devices=[_on_device(device, report.rows) for device in report.devices],
            trade_off=plots.trade_off(report.rows, comparisons(report.rows)),
            passes=[
                _Pass(record, plots.training_curves(record, number)) for number, record in enumerate(report.passes, 1)
            ],
            detailed=detailed,
            confusion=condense(confusion, classes, _FEW_CLASSES if len(classes) <= _FEW_CLASSES else _WORST_CLASSES)
            if confusion
            else None,
            worst=worst_pairs(confusion, classes) if confusion else (),
            scores=scores[:_FEW_CLASSES],
            more_scores=scores[_FEW_CLASSES:],
            shown=_shown(report, detailed, images or {}),
            slowest=max((stage.seconds for stage in report.stages), default=0.0),
            recipe_text=recipe_text,
            called=score_called(report.rows),
            sections=[_section(section, number, images or {}) for number, section in enumerate(detailed.sections)]
            if detailed
            else [],
        )
    )


def environment(*folders: Path) -> Environment:
    """Templates in `folders` and beside this module; everything that they print is escaped, plots aside."""
    environment = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["long_mapping"] = lambda value: isinstance(value, Mapping) and len(value) > _MOST_IN_A_LINE
    environment.filters.update(
        percent=figures.percent,
        interval=figures.interval,
        score=figures.score,
        score_interval=figures.score_interval,
        size=figures.size,
        size_in_words=size_in_words,
        count=figures.count,
        milliseconds=figures.milliseconds,
        energy=energies.told,
        methods=energies.methods,
        factor=figures.factor,
        points=figures.points,
        duration=figures.seconds,
        value=_value,
        tight=tight,
        svg=lambda plot: Markup(plot.svg),  # noqa: S704 -- matplotlib has escaped its texts
    )
    return environment


def _cards(rows: Sequence[Row]) -> list[tuple[Row, Comparison | None]]:
    """The files that ship: the optimized ones, or all where the recipe does not optimize."""
    shipped = [row for row in rows if row.role is Role.OPTIMIZED] or rows
    return [(row, compare(row, rows)) for row in shipped if not row.error]


def _bars(rows: Sequence[Row]) -> list[_Bars]:
    largest = max((row.size_bytes or 0 for row in rows), default=0)
    slowest = max((row.latency_ms.p50 for row in rows if row.latency_ms), default=0.0)
    return [
        _Bars(
            row,
            row.size_bytes / largest if row.size_bytes and largest else None,
            row.latency_ms.p50 / slowest if row.latency_ms and slowest else None,
        )
        for row in rows
        if row.size_bytes or row.latency_ms
    ]


def _on_device(device: MeasuredDevice, rows: Sequence[Row]) -> _OnDevice:
    files = [(row, there(device, row)) for row in rows]
    return _OnDevice(
        device,
        described(device.name, device.facts) if device.facts else "",
        tuple(_There(row, file, latencies_there(device, row, rows)) for row, file in files if file),
    )


def _shown(report: Report, row: Row | None, images: Mapping[int, Pixels]) -> list[_Shown]:
    """The samples that `row` answered, wrong answers first."""
    if row is None:
        return []
    baseline = next(
        (other for other in report.rows if other.role is Role.BASELINE and other.export == row.export), None
    )
    answered = [sample for sample in report.samples if row.file in sample.predictions]
    answered.sort(key=lambda sample: sample.predictions[row.file].label == sample.label)
    return [_shown_sample(sample, row, baseline, report.dataset.classes, images) for sample in answered]


def _shown_sample(
    sample: Sample, row: Row, baseline: Row | None, classes: Sequence[str], images: Mapping[int, Pixels]
) -> _Shown:
    answer = sample.predictions[row.file]
    before = sample.predictions.get(baseline.file) if baseline else None
    return _Shown(
        source=data_uri(images[sample.index]) if sample.index in images else None,
        truth=classes[sample.label],
        answer=classes[answer.label],
        confidence=answer.confidence,
        right=answer.label == sample.label,
        float_answer=classes[before.label] if before and before.label != answer.label else None,
    )


def _section(section: Section, number: int, images: Mapping[int, Pixels]) -> _Section:
    return _Section(
        section,
        tuple(plots.lines(each, f"section-{number}-{place}") for place, each in enumerate(section.plots)),
        tuple(
            _SectionImage(each, data_uri(images[each.index]) if each.index in images else None)
            for each in section.images
        ),
    )


def data_uri(pixels: Pixels) -> str:
    """An image, uint8 (height, width, channels), as a PNG inside a URI, made smaller when it is large."""
    from edgeopt.data.images import image_of  # Pillow: only a report with images needs it

    image = image_of(pixels)
    image.thumbnail((_IMAGE_SIDE, _IMAGE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def moment(finished: str | None) -> str | None:
    """An ISO 8601 time as people read it."""
    if finished is None:
        return None
    try:
        return datetime.fromisoformat(finished).strftime("%d %B %Y, %H:%M %Z").strip().lstrip("0")
    except ValueError:
        return finished


def tight(sentence: str) -> str:
    """A sentence in which no figure is parted from its unit."""
    return re.sub(r"(?<=\d) (?=(?:%|ms|[kMG]?B)\b|%)", "\u00a0", sentence)


def _value(value: Json) -> str:
    """A fact, option or version as a short text."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: figures.MISSING}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(inner)}" for name, inner in value.items()) or figures.MISSING
    if isinstance(value, list | tuple):
        return ", ".join(_value(inner) for inner in value) or figures.MISSING
    return str(value)
