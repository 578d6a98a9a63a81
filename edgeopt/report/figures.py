"""Figures as people read them; a missing one is a dash."""

from __future__ import annotations

import math

from edgeopt.tasks.scores import ACCURACY, Score, three_digits
from edgeopt.tasks.statistics import Paired

MISSING = "–"
MINUS = "−"


def percent(share: float | None) -> str:
    """A share, 0 to 1, as in "98.9 %"; only a whole share reads 100.0 %."""
    return MISSING if share is None else ACCURACY.text(share)


def score(value: Score | None) -> str:
    """A score, as in "98.9 %" or "2.31°"."""
    return MISSING if value is None else value.text


def score_interval(value: Score | None, *, with_unit: bool = True) -> str:
    """Both bounds of a score's interval, as in "96.8–99.6 %" or "1.9–2.8°"."""
    return MISSING if value is None else value.kind.interval_text(value.interval, with_unit=with_unit)


def whole_percent(share: float | None) -> str:
    """A share, 0 to 1, rounded down, as in "98 %": 100 % is all of it."""
    return MISSING if share is None else f"{math.floor(100 * share + 1e-9)} %"


def interval(bounds: tuple[float, float] | None, unit: str = " %") -> str:
    """Both bounds of a share, as in "96.8–99.6 %"."""
    return MISSING if bounds is None else f"{ACCURACY.interval_text(bounds, with_unit=False)}{unit}"


def points(change: float) -> str:
    """A difference of shares, as in "−0.4 points"."""
    return ACCURACY.change_text(change)


def points_interval(bounds: tuple[float, float]) -> str:
    """Both bounds of a difference of shares, as in "−1.2 to +0.4"."""
    return " to ".join(points(bound).removesuffix(" points") for bound in bounds)


def counted(pair: Paired) -> str:
    """The images behind a difference and whether it may be chance, as in "3 images lost, 2 gained, p = 1.00"."""
    if pair.graded:
        answered = f"{pair.lost} {'image' if pair.lost == 1 else 'images'} answered worse, {pair.gained} better"
        return f"{answered}, {probability(pair.p_value)}"
    lost = f"{pair.lost} {'image' if pair.lost == 1 else 'images'} lost"
    return f"{lost}, {pair.gained} gained, {probability(pair.p_value)}"


def probability(value: float) -> str:
    """A p-value, as in "p = 0.03" or "p < 0.001"."""
    if value < 0.001:
        return "p < 0.001"
    return f"p = {value:.3f}" if value < 0.095 else f"p = {value:.2f}"


def size(count: float | None) -> str:
    """Bytes in decimal units, as in "1.79 MB"."""
    if count is None:
        return MISSING
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale * 0.9995:
            return f"{three_digits(count / scale)} {unit}"
    return f"{count:.0f} B"


def count(value: int | None) -> str:
    """A large number, as in "301 M" or "3.50 M"."""
    if value is None:
        return MISSING
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale * 0.9995:
            return f"{three_digits(value / scale)} {unit}"
    return str(value)


def milliseconds(value: float | None, unit: str = " ms") -> str:
    """Milliseconds to three digits, as in "2.31 ms"."""
    return MISSING if value is None else f"{three_digits(value)}{unit}"


def millijoules(value: float | None, unit: str = " mJ") -> str:
    """Millijoules to three digits, as in "4.2 mJ"."""
    return MISSING if value is None else f"{three_digits(value)}{unit}"


def factor(value: float | None) -> str:
    """A ratio, as in "3.5×"."""
    return MISSING if value is None else f"{_ratio(value)}×"


def times(value: float) -> str:
    """A ratio in a sentence, as in "3.5 times"."""
    return f"{_ratio(value)} times"


def seconds(value: float) -> str:
    """A duration, as in "0.4 s" or "2 min 05 s"."""
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 1.095 else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"
