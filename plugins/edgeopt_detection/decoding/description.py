"""What an app must know to turn the raw heads of a file into boxes: the part of a card that is a detector's. Light."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgeopt.plugins import DataError, Json, Problem

Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Corners = tuple[Finite, Finite, Finite, Finite]

_STRICT = ConfigDict(frozen=True, extra="forbid")


class AnchorLevel(BaseModel):
    """The anchors of one feature map: `rows` × `columns` places, at each of them the same boxes.

    The place in row r and column c is at `origin` + (r, c) · `step`, both (y, x) in px of the file's input. `boxes` are
    corners (x1, y1, x2, y2) in px, seen from their place. Anchors are counted row by row, column by column, box by box.
    """

    model_config = _STRICT

    rows: Count
    columns: Count
    origin: tuple[Finite, Finite]
    step: tuple[Finite, Finite]
    boxes: tuple[Corners, ...] = Field(min_length=1)

    @property
    def anchors(self) -> int:
        """How many anchors there are."""
        return self.rows * self.columns * len(self.boxes)


class Candidates(BaseModel):
    """How many boxes are looked at before overlaps are removed: the best `most` of each class, or of each level."""

    model_config = _STRICT

    per: Literal["class", "level"]
    most: Count


class BoxDecoding(BaseModel):
    """How raw heads become boxes: anchors, what the numbers of a box mean, thresholds, and how many are kept.

    `scores` says how class logits become scores. "softmax" is over all classes of an anchor, of which `background` is
    none that is reported; "sigmoid" is each by itself; "sigmoid-centerness" is the root of the product of that and the
    sigmoid of a third output.
    `boxes` says what the four numbers of an anchor are. "offsets" moves and scales the anchor (Faster R-CNN, SSD,
    RetinaNet), each number divided by its one of `weights`, the logarithm of a scale at most `scale_limit`; "distances"
    goes from the middle of the anchor to the four sides, in widths and heights of the anchor (FCOS).
    A box is reported where its score is above `score_threshold`; one that overlaps a better one of its class by an
    intersection over union above `iou_threshold` is dropped; of the rest, the best `most` are kept.
    """

    model_config = _STRICT

    height: Count
    width: Count
    classes: Count
    levels: tuple[AnchorLevel, ...] = Field(min_length=1)
    scores: Literal["softmax", "sigmoid", "sigmoid-centerness"]
    background: Annotated[int, Field(ge=0)] | None = None
    boxes: Literal["offsets", "distances"]
    weights: Corners = (1.0, 1.0, 1.0, 1.0)
    scale_limit: Finite | None = None
    score_threshold: Share
    iou_threshold: Share
    candidates: Candidates
    most: Count

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if (self.background is None) == (self.scores == "softmax"):
            raise ValueError('background names a column of logits where scores = "softmax", and there alone')
        if self.background is not None and self.background > self.classes:
            raise ValueError(f"background is {self.background}, and there are {self.classes + 1} columns of logits")
        if (self.scale_limit is None) == (self.boxes == "offsets"):
            raise ValueError('scale_limit is told where boxes = "offsets", and there alone')
        if 0 in self.weights:
            raise ValueError("a weight of 0 would divide by it")
        return self

    @property
    def anchors(self) -> int:
        """Anchors of all levels."""
        return sum(level.anchors for level in self.levels)

    @property
    def columns(self) -> int:
        """Class logits of an anchor, the background's included."""
        return self.classes + (self.background is not None)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The raw heads in their order: "logits", "boxes" and, where it is used, "centerness"."""
        return ("logits", "boxes", "centerness") if self.scores == "sigmoid-centerness" else ("logits", "boxes")

    def to_json(self) -> Json:
        """What stands in a card; numbers survive exactly."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, value: Json, where: str = "the card") -> Self:
        """Reads what `to_json` wrote; raises `DataError` that names everything that does not fit."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            problems = [
                Problem(f"{where}: decoding.{'.'.join(map(str, each['loc'])) or '*'}: {each['msg']}")
                for each in error.errors(include_url=False)
            ]
            raise DataError(*problems) from error
