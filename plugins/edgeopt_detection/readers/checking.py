"""The one place that checks boxes: whatever the format, numbers come in here and `Boxes` go out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.plugins import Problem
from edgeopt_detection.options import Form
from edgeopt_detection.readers.findings import Findings, Kind
from edgeopt_detection.readers.images import FlatBoxes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

_CALLED: dict[Form, str] = {
    "xyxy": "corners x1, y1, x2, y2 in px",
    "xywh": "x, y, width, height in px",
    "cxcywh": "middle x, middle y, width, height in px",
    "normalized-xyxy": "corners x1, y1, x2, y2 as shares of the image",
    "normalized-xywh": "x, y, width, height as shares of the image",
    "normalized-cxcywh": "middle x, middle y, width, height as shares of the image",
}
_OVER = 1.0  # px over the edge of an image that are cut off: annotation tools round
_OVER_SHARE = 0.005  # the same, where images are not opened
_MOSTLY = 0.5  # share of boxes that do not fit, from which the form itself is doubted
_SURELY_PX = 2  # a share is none any more
_SURELY = 0.95  # share of boxes that fit another form, from which that is taken for the right one


@dataclass(frozen=True, eq=False)
class GivenBoxes:
    """Boxes as a format has them: float64 `numbers` (n, 4), the `images` they are in and their `classes`, int64 (n,),
    and whether each marks a crowd, bool (n,). `sizes`, float64 (images, 2), are width and height of each image in px;
    shares that stay shares have images of 1 × 1, and `are_shares`.

    `where` names a box for a person; `origin` what holds them all.
    """

    numbers: Numbers
    images: NDArray[np.int64]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    sizes: Numbers
    where: Callable[[int], str]
    origin: str
    are_shares: bool = False

    @property
    def over(self) -> float:
        """How far over an image's edge a box may reach, to be cut off there."""
        return _OVER_SHARE if self.are_shares else _OVER


def checked(given: GivenBoxes, form: Form, findings: Findings, *, option: str | None = None) -> FlatBoxes:
    """The boxes that are right, image by image, in px; the others are told to `findings`.

    Where most boxes do not fit their images in this form and fit them in another one, that is told instead; `option`
    names the option that sets the form, where there is one.
    """
    own = given.sizes[given.images]
    corners = _corners(given.numbers, own, form)
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(given.numbers).all(axis=1))
    flat = finite & ~_has_area(corners)
    outside = finite & ~flat & ~_inside(corners, own, given.over)
    if doubt := _doubt(given, form, own, finite, flat | outside, option):
        findings.refuse(doubt)
        return FlatBoxes.of_none(len(given.sizes))
    for index in np.flatnonzero(~finite).tolist():
        findings.add(Kind.NOT_NUMBERS, f"{given.where(index)}: {_text(given.numbers[index])} are no four numbers")
    for index in np.flatnonzero(flat).tolist():
        findings.add(Kind.NO_AREA, f"{given.where(index)}: {_text(given.numbers[index])} has no area")
    for index in np.flatnonzero(outside).tolist():
        size = "" if given.are_shares else f" of {own[index][0]:g} × {own[index][1]:g} px"
        message = f"{given.where(index)}: {_text(given.numbers[index])} lies outside the image{size}"
        findings.add(Kind.OUTSIDE, message)
    right = np.flatnonzero(finite & ~flat & ~outside)
    right = right[~_doubled(given, right, findings)]
    order = right[np.argsort(given.images[right], kind="stable")]
    cut = np.minimum(np.maximum(corners[order], 0), np.concatenate([own[order], own[order]], axis=1))
    counts = np.bincount(given.images[order], minlength=len(given.sizes))
    return FlatBoxes(cut.astype(np.float32), given.classes[order], given.crowd[order], np.cumsum(np.append(0, counts)))


def _corners(numbers: Numbers, sizes: Numbers, form: Form) -> Numbers:
    """Corners in px, float64 (n, 4)."""
    scaled = numbers * np.concatenate([sizes, sizes], axis=1) if form.startswith("normalized-") else numbers
    low, other = scaled[:, :2], scaled[:, 2:]
    kind = form.removeprefix("normalized-")
    if kind == "cxcywh":
        low = low - other / 2
    return np.concatenate([low, other if kind == "xyxy" else low + other], axis=1)


def _has_area(corners: Numbers) -> NDArray[np.bool_]:
    wide: NDArray[np.bool_] = np.all(corners[:, 2:].astype(np.float32) > corners[:, :2].astype(np.float32), axis=1)
    return wide


def _inside(corners: Numbers, sizes: Numbers, over: float) -> NDArray[np.bool_]:
    """Whether boxes lie in their images, but for what is cut off, and leave something of themselves there."""
    near = (corners[:, :2] >= -over).all(axis=1) & (corners[:, 2:] <= sizes + over).all(axis=1)
    cut = np.concatenate([np.maximum(corners[:, :2], 0), np.minimum(corners[:, 2:], sizes)], axis=1)
    inside: NDArray[np.bool_] = near & _has_area(cut)
    return inside


def _doubt(
    given: GivenBoxes,
    form: Form,
    sizes: Numbers,
    finite: NDArray[np.bool_],
    wrong: NDArray[np.bool_],
    option: str | None,
) -> Problem | None:
    """What to say where another form explains the numbers far better."""
    known = int(np.count_nonzero(finite))
    tiny = known and not form.startswith("normalized-") and float(np.abs(given.numbers[finite]).max()) <= 1
    if not known or (np.count_nonzero(wrong) <= _MOSTLY * known and not tiny):
        return None
    numbers, own = given.numbers[finite], sizes[finite]
    if given.are_shares and np.median(np.abs(numbers).max(axis=1)) > _SURELY_PX:
        message = f"of {known} boxes of {given.origin}, most have numbers far above 1: they are in px"
        return Problem(message, f"write {_CALLED[form]}", option=option)
    fits = {}
    for other in _CALLED:
        corners = _corners(numbers, own, other)
        fits[other] = int(np.count_nonzero(_has_area(corners) & _inside(corners, own, given.over)))
    others = {other: count for other, count in fits.items() if other != form and count >= _SURELY * known}
    if tiny:  # as px, numbers up to 1 fit any image
        others = {other: count for other, count in others.items() if other.startswith("normalized-")}
    if not others:
        return None
    best = max(others, key=lambda other: others[other])
    as_ = f"of {known} boxes of {given.origin}, {np.count_nonzero(wrong)} lie outside their images or have no area"
    if tiny:
        as_ = f"no number of the {known} boxes of {given.origin} is above 1"
    hint = f'set {option} = "{best}"' if option else "write them in the form that the format has"
    message = f"{as_} as {_CALLED[form]}, and {others[best]} are right as {_CALLED[best]}: they are in that form"
    return Problem(message, hint, option=option)


def _doubled(given: GivenBoxes, right: NDArray[np.int64], findings: Findings) -> NDArray[np.bool_]:
    """Which boxes stand in their image before, with the same class and numbers: bool (n,)."""
    rows = np.column_stack([given.images[right], given.classes[right], given.numbers[right]])
    _, first, group = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    earlier = first[group.reshape(-1)]
    doubled: NDArray[np.bool_] = earlier != np.arange(len(right))
    for place in np.flatnonzero(doubled).tolist():
        twin = given.where(right[earlier[place]])
        findings.add(Kind.DOUBLED, f"{given.where(right[place])}: the same box and class as {twin}")
    return doubled


def _text(numbers: Numbers) -> str:
    return ", ".join(f"{each:g}" for each in numbers)
