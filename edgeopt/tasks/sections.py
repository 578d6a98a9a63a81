"""What a task adds to a report: tables and images with what a file answered, in plain values."""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.arrays import Json


@dataclass(frozen=True)
class SectionTable:
    """A table: each of `rows` has a cell, a text or a number, for each of `columns`."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Json, ...], ...]
    caption: str = ""


@dataclass(frozen=True)
class SectionPlot:
    """Lines through points, such as precision by recall: a name, x and y of each, and what the axes are."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...]


@dataclass(frozen=True)
class Outline:
    """A closed line on an image: corners x, y from 0 to 1 of its width and height. `is_truth` tells what stands in the
    data set from what a file answered.
    """

    corners: tuple[tuple[float, float], ...]
    text: str = ""
    is_truth: bool = False


@dataclass(frozen=True)
class SectionImage:
    """A test image by its place in the split, with what it shows and what the file answered.

    `right` is None where an answer is neither right nor wrong. `overlay_png` is a transparent PNG of the image's size,
    base64, laid over it; empty for none.
    """

    index: int
    truth: str
    answer: str
    right: bool | None = None
    outlines: tuple[Outline, ...] = ()
    overlay_png: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the report on what one file answered: a title, sentences, tables, plots and images."""

    title: str
    text: tuple[str, ...] = ()
    tables: tuple[SectionTable, ...] = ()
    plots: tuple[SectionPlot, ...] = ()
    images: tuple[SectionImage, ...] = ()
