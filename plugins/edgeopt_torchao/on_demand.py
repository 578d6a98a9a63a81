"""Accuracy on demand: the layers that mind quantization most go back to float, until the accuracy holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from edgeopt.errors import NothingChangedError
from edgeopt.plugin import ExporterPlugin, PassContext, Use
from edgeopt.trial_files import TrialFiles, latencies_ms
from edgeopt.types import ModelState

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """What a layer in float costs more than quantized, in a file in which all others are."""

    size_bytes: int
    latency_ms: float


def hold_accuracy(
    make: Callable[[frozenset[str]], T], order: Sequence[str], accuracy: Callable[[T], float], least: float
) -> tuple[T, tuple[str, ...]]:
    """What `make` gives with the fewest layers of `order`, from its start, in float, so that its accuracy is `least` or more; and these layers.

    More layers in float are taken to be no worse, so that a few trials tell: the number is found by halving. What is returned was
    measured, and holds.

    Raises `NothingChangedError` when the accuracy holds with no layer quantized at most.
    """
    good: dict[int, T] = {}

    def holds(count: int) -> bool:
        made = make(frozenset(order[:count]))
        if accuracy(made) < least:
            return False
        good[count] = made
        return True

    if holds(0):
        return good[0], ()
    fails, enough = 0, len(order)
    while enough - fails > 1:
        middle = (fails + enough) // 2
        fails, enough = (fails, middle) if holds(middle) else (middle, enough)
    if enough == len(order):
        raise NothingChangedError(
            f"max_accuracy_drop: with any layer quantized, accuracy falls below {least:.1%} on validation",
            hint="raise max_accuracy_drop, use qat, or take more bits",
        )
    return good[enough], tuple(order[:enough])


def costs_of(
    in_float: Sequence[str],
    make: Callable[[frozenset[str]], ModelState],
    use: Use[ExporterPlugin],
    context: PassContext,
) -> dict[str, Cost]:
    """What each of the layers costs in float, by name, in files of an exporter; `make` gives the state with some layers in float."""
    if not in_float:
        return {}
    with TrialFiles(use, context) as files:
        quantized = files.write(make(frozenset()))
        alone = [files.write(make(frozenset({name}))) for name in in_float]
        first, *others = latencies_ms([quantized, *alone])
        return {
            name: Cost(file.size_bytes - quantized.size_bytes, milliseconds - first)
            for name, file, milliseconds in zip(in_float, alone, others, strict=True)
        }
