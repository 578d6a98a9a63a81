"""The scale on which a probe changes a layer. Light."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Levels:
    """The scale on which a probe changes a layer: `default` are the levels tried when none are named, the mildest
    first.

    Levels lie from `mildest` to `harshest`, and are whole numbers where `whole` is set. `untouched` stands for a layer
    that stays as it is, such as a sparsity of 0 or 32 bits.
    """

    default: tuple[float, ...]
    mildest: float
    harshest: float
    untouched: float
    whole: bool = False

    def sorted(self, levels: Iterable[float]) -> tuple[float, ...]:
        """`levels` without repeats, the mildest first."""
        return tuple(sorted(set(levels), reverse=self.harshest < self.mildest))

    def problem(self, level: float) -> str | None:
        """Why `level` is not on the scale, or None."""
        low, high = sorted((self.mildest, self.harshest))
        if not low <= level <= high:
            return f"{level:g} is not from {low:g} to {high:g}"
        return f"{level:g} is not a whole number" if self.whole and level != int(level) else None
