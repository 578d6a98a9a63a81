"""What a scan found: a cell for each layer and level, what is recommended, and both as text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property

from edgeopt.arrays import Json
from edgeopt.tasks.stored import DEFAULT as DEFAULT_TASK


class Measure(StrEnum):
    """How far a changed network is from the float one."""

    ACCURACY = "accuracy"
    """The drop of answers that are right, as the task has it, as a share of the images: of top-1 accuracy where each is
    of one class; negative where more answers are right.
    """
    LOGITS = "logits"
    """The squared difference of the outputs, such as logits, as a share of the squares of the float network's."""


class Verdict(StrEnum):
    """Whether a level's score on all images keeps to the threshold."""

    PASSES = "passes"
    FAILS = "fails"
    SKIPPED = "skipped"
    """Not run to the end, because a harsher level of the layer passes."""
    NONE = ""
    """There is no threshold."""


@dataclass(frozen=True)
class Cell:
    """One layer at one level.

    `score` is that on the `images` that were run; `least` and `most` bound the one on all images, and `most` is
    None where nothing does.
    """

    layer: str
    level: float
    score: float
    least: float
    most: float | None
    images: int
    verdict: Verdict


@dataclass(frozen=True)
class Scan:
    """The cells of all layers, in the order of the program, each with its levels from the mildest to the harshest.

    `of` names the probe, `untouched` its level that changes nothing; `images` is how many there are, and `accuracy` the
    share that the float network answers rightly, as `task` has it. `error` bounds the probability that any verdict is
    not that on all images. `outputs` are the network's by name.
    """

    of: str
    measure: Measure
    threshold: float | None
    error: float
    untouched: float
    images: int
    accuracy: float
    cells: tuple[Cell, ...]
    task: str = DEFAULT_TASK
    outputs: tuple[str, ...] = ("logits",)

    @property
    def title(self) -> str:
        """What the figures are."""
        if self.measure is Measure.ACCURACY:
            return f"drop of {'accuracy' if self.task == DEFAULT_TASK else 'answers that are right'} in points"
        outputs = self.outputs[0] if len(self.outputs) == 1 else "outputs"
        return f"squared error of the {outputs}, as a share of their squares"

    @cached_property
    def layers(self) -> Mapping[str, Sequence[Cell]]:
        """The cells of each layer."""
        layers: dict[str, list[Cell]] = {}
        for cell in self.cells:
            layers.setdefault(cell.layer, []).append(cell)
        return layers

    @property
    def levels(self) -> Sequence[float]:
        """The levels that were tried, the mildest first."""
        return tuple(dict.fromkeys(cell.level for cell in self.cells))

    def score(self, layer: str, level: float) -> float:
        """The score of one cell; raises `KeyError` when it is not in the table."""
        return {cell.level: cell.score for cell in self.layers[layer]}[level]

    @property
    def recommended(self) -> Mapping[str, float]:
        """For each layer the harshest level that passes; `untouched` where none does.

        Raises `ValueError` for a scan without a threshold.
        """
        if self.threshold is None:
            raise ValueError("a scan without a threshold recommends nothing")
        return {
            layer: next((cell.level for cell in reversed(cells) if cell.verdict is Verdict.PASSES), self.untouched)
            for layer, cells in self.layers.items()
        }

    def to_json(self) -> str:
        """The table as JSON text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> Scan:
        """Reads what `to_json` wrote."""
        values: dict[str, Json] = json.loads(text)
        cells = tuple(Cell(**{**cell, "verdict": Verdict(cell["verdict"])}) for cell in values["cells"])
        if "outputs" in values:
            values["outputs"] = tuple(values["outputs"])
        return Scan(**{**values, "measure": Measure(values["measure"]), "cells": cells})

    def to_csv(self) -> str:
        """The table as CSV, one line for each cell; `recommended` is "yes" for the level that is."""
        recommended = self.recommended if self.threshold is not None else {}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            (
                "layer",
                self.of,
                "score",
                "least",
                "most",
                "images",
                "verdict",
                "recommended",
            )  # the level's column names its kind
        )
        for cell in self.cells:
            bounds = (f"{cell.least:.6g}", "" if cell.most is None else f"{cell.most:.6g}")
            chosen = "yes" if recommended.get(cell.layer) == cell.level else ""
            writer.writerow(
                (cell.layer, f"{cell.level:g}", f"{cell.score:.6g}", *bounds, cell.images, cell.verdict, chosen)
            )
        return text.getvalue()
