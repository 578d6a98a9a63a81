"""Figures of a comparison as people read them, in the terminal and on the page."""

from __future__ import annotations

import json
from collections.abc import Mapping

from edgeopt.arrays import Json
from edgeopt.comparison.schema import BytesChange, Change

SAME_SIZE = 0.01
"""Two sizes no farther apart than this share are as good as equal."""
SAME_MEMORY = 0.05
"""The same for two peaks of memory, which move by pages from one process to the next."""

_TONES = {Change.BETTER: "better", Change.WORSE: "worse", Change.SAME: "quiet", Change.UNCLEAR: "quiet"}


def change_tone(change: Change) -> str:
    """The tone in which a change is shown: "better", "worse" or "quiet"."""
    return _TONES[change]


def bytes_tone(change: BytesChange, noise: float) -> str:
    """The tone of a size or a peak of memory, as `change_tone` gives it; within `noise`, a share, it is quiet."""
    if abs(change.ratio - 1) < noise:
        return change_tone(Change.SAME)
    return change_tone(Change.WORSE if change.ratio > 1 else Change.BETTER)


def ratio_text(ratio: float) -> str:
    """How much of before is left, as in "−24 %", "+3.1 %" or "2.4×"."""
    if ratio >= 2:
        return f"{ratio:.1f}×" if ratio < 9.95 else f"{ratio:.0f}×"
    change = 100 * (ratio - 1)
    text = f"{abs(change):.1f}" if abs(change) < 9.95 else f"{abs(change):.0f}"
    if text == "0.0":
        return "±0 %"
    return f"{'−' if change < 0 else '+'}{text} %"


def kept_value(value: Json) -> str:
    """A value of a lock as a recipe would write it; a plugin by its name, and what is not there as a dash."""
    if value is None:
        return "–"
    if isinstance(value, Mapping) and "use" in value:
        return str(value["use"])
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
