"""A task's drawing of an answer in px of the image as it was sent, as JSON: `values.Found` without its times."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.arrays import Json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.preprocessing import Geometry
    from edgeopt.tasks.drawings import Drawing

_TOLD = 4  # classes of a mask, in words
_DIGITS = 2  # of px


def found_of(drawing: Drawing, classes: Sequence[str], geometry: Geometry) -> dict[str, Json]:
    """The answer to one image that came into the frame by `geometry`; upright, as people see it.

    Boxes are cut at the borders of the image. The mask is the part of the frame that shows the image.
    """
    height, width = geometry.original
    values: dict[str, Json] = {"words": drawing.words, "width": width, "height": height}
    values |= {"labels": None, "boxes": None, "shown_score": None, "mask": None}
    if drawing.labels is not None:
        values["labels"] = [
            {"label": classes[each.label], "index": each.label, "confidence": each.confidence}
            | {"threshold": each.threshold, "told": each.confidence >= each.threshold}
            for each in sorted(drawing.labels, key=lambda label: -label.confidence)
        ]
    if drawing.boxes is not None:
        corners = np.array([each.corners for each in drawing.boxes]).reshape(-1, 4)
        placed = geometry.boxes_to_original(corners, clipped=True).round(_DIGITS).tolist()
        values["shown_score"] = drawing.shown_score
        values["boxes"] = [
            {"label": classes[each.label], "index": each.label, "score": each.score}
            | dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
            for each, box in zip(drawing.boxes, placed, strict=True)
        ]
    if drawing.mask is not None:
        values["mask"] = _mask(drawing.mask, classes, geometry)
        parts = [f"{each['label']} {100 * each['share']:.0f} %" for each in values["mask"]["classes"][:_TOLD]]
        values["words"] = ", ".join(parts)  # of the image, and not of what lies around it in a letterbox
    return values


def _mask(mask: NDArray[Any], classes: Sequence[str], geometry: Geometry) -> dict[str, Json]:
    from PIL import Image  # heavy: only masks are written

    left, top, right, bottom = _seen(geometry)
    rows, columns = (side / of for side, of in zip(mask.shape, geometry.network, strict=True))
    seen = mask[round(top * rows) : round(bottom * rows), round(left * columns) : round(right * columns)]
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(seen, dtype=np.uint8)).save(file, "PNG")
    values, counts = np.unique(seen, return_counts=True)
    order = np.argsort(-counts, kind="stable").tolist()
    x1, y1, x2, y2 = geometry.boxes_to_original([left, top, right, bottom], clipped=True).round(_DIGITS).tolist()
    return {
        "png": base64.b64encode(file.getvalue()).decode(),
        "x1": x1,
        "y1": y1,
        "x2": x2,
        "y2": y2,
        "classes": [
            {"label": _name(int(values[each]), classes), "index": int(values[each]), "share": counts[each] / seen.size}
            for each in order
        ],
    }


def _name(value: int, classes: Sequence[str]) -> str:
    """The name of a class; a file of classes in integers may answer with one that there is none of."""
    return classes[value] if value < len(classes) else f"class {value}"


def _seen(geometry: Geometry) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what the frame shows of the image, px."""
    (tall, wide), (height, width), (x, y) = geometry.resized, geometry.network, geometry.offset
    return max(0, x), max(0, y), min(width, x + wide), min(height, y + tall)
