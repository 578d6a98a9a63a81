"""Accuracy on demand: the layers that lose most accuracy by quantization go back to float, until the accuracy holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from edgeopt.export.trial_files import TrialFiles, latencies_ms
from edgeopt.plugins import ExporterPlugin, ModelState, NothingChangedError, PassContext, Use

T = TypeVar("T")


@dataclass(frozen=True)
class CostInFloat:
    """How much larger and slower a file gets when one layer is in float and all others are quantized."""

    size_bytes: int
    latency_ms: float


def hold_accuracy(
    make: Callable[[frozenset[str]], T], order: Sequence[str], accuracy: Callable[[T], float], least: float
) -> tuple[T, tuple[str, ...]]:
    """Puts the first layers of `order` back to float, as few as give an accuracy of `least` or more.

    Returns what `make` gives for these layers, and the layers. Their number is found by halving, on the assumption that
    more layers in float are never worse. What is returned was measured, and holds.

    Raises `NothingChangedError` when the accuracy is only reached with every layer in float.
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
) -> dict[str, CostInFloat]:
    """What each of the layers costs in float, by name, measured in files of an exporter.

    `make` gives the state with the named layers in float.
    """
    if not in_float:
        return {}
    with TrialFiles(use, context) as files:
        quantized = files.write(make(frozenset()))
        alone = [files.write(make(frozenset({name}))) for name in in_float]
        first, *others = latencies_ms([quantized, *alone])
        return {
            name: CostInFloat(file.size_bytes - quantized.size_bytes, milliseconds - first)
            for name, file, milliseconds in zip(in_float, alone, others, strict=True)
        }
