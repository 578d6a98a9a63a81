"""Generated images with many shapes each, and the box of every one: what a detector learns from without data."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.plugins import RawDataset, usable_cores
from edgeopt_detection.boxes import Boxes, overlaps
from edgeopt_detection.readers.images import ArrayBoxImages, FlatBoxes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Field = NDArray[np.float32]
    Distance = Callable[[Field, Field], Field]

_MOST = 6  # shapes of an image
_EMPTY = 0.03  # share of images without any
_RADIUS = (0.06, 0.22)  # of a shape, as a share of the image's edge
_OVERLAP = 0.15  # that two boxes of an image may have
_CONTRAST = (0.35, 0.8)  # between a shape's colour and the ground's
_NOISE = 0.03
_EDGE = 1.0  # px over which a shape fades into what is behind it
_TRIES = 20  # places that are tried for a shape before it is left out
_SEEN = 0.5  # of a pixel, from which it belongs to the shape's box


def _circle(x: Field, y: Field) -> Field:
    return np.hypot(x, y) - np.float32(1)


def _square(x: Field, y: Field) -> Field:
    return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.85)


def _triangle(x: Field, y: Field) -> Field:
    return np.maximum(np.abs(x) * np.float32(0.866) + y * np.float32(0.5), -y) - np.float32(0.5)


def _ring(x: Field, y: Field) -> Field:
    return np.abs(np.hypot(x, y) - np.float32(0.75)) - np.float32(0.25)


def _cross(x: Field, y: Field) -> Field:
    across, along = np.minimum(np.abs(x), np.abs(y)), np.maximum(np.abs(x), np.abs(y))
    return np.maximum(across - np.float32(0.3), along - np.float32(0.95))


SHAPES: dict[str, Distance] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "ring": _ring,
    "cross": _cross,
}


def make_shape_boxes(images: int, edge: int, seed: int) -> RawDataset:
    """Images, uint8 (n, edge, edge, 3), with up to six shapes of five classes each, some with none, all from the seed.

    Shapes lie on a ground of two colours that run into each other, beside lines that are none of them, turned a little
    and of any colour that can be told from the ground. Boxes hold a shape to the pixel; a later one may lie before it.
    """

    def draw(number: int) -> tuple[NDArray[np.uint8], Boxes]:
        return _draw(edge, np.random.default_rng([seed, number]))

    with ThreadPoolExecutor(usable_cores()) as pool:
        drawn = list(pool.map(draw, range(images)))
    boxes = [each[1] for each in drawn]
    flat = FlatBoxes(
        np.concatenate([each.corners for each in boxes]),
        np.concatenate([each.classes for each in boxes]),
        np.concatenate([each.crowd for each in boxes]),
        np.cumsum([0, *map(len, boxes)], dtype=np.int64),
    )
    return RawDataset(tuple(SHAPES), {"train": ArrayBoxImages(np.stack([each[0] for each in drawn]), flat)})


def _draw(edge: int, random: np.random.Generator) -> tuple[NDArray[np.uint8], Boxes]:
    place = np.arange(edge, dtype=np.float32) + np.float32(0.5)
    x, y = place[None, :], place[:, None]
    image, ground = _ground(x, y, edge, random)
    count = 0 if random.random() < _EMPTY else int(random.integers(1, _MOST + 1))
    corners: list[tuple[float, float, float, float]] = []
    classes: list[int] = []
    for _ in range(count):
        label = int(random.integers(len(SHAPES)))
        for _ in range(_TRIES):
            radius = float(random.uniform(*_RADIUS)) * edge
            middle = random.uniform(radius, edge - radius, 2)
            covered = _covered(x - np.float32(middle[0]), y - np.float32(middle[1]), radius, label, random)
            box = _box(covered)
            if box is not None and not _crowded(box, corners):
                image = _painted(image, covered, ground, random)
                corners.append(box)
                classes.append(label)
                break
    noise = random.standard_normal(image.shape, dtype=np.float32) * np.float32(_NOISE)
    pixels = np.rint(255 * np.clip(image + noise, 0, 1)).astype(np.uint8)
    return pixels, Boxes.of(np.asarray(corners, dtype=np.float32).reshape(-1, 4), np.asarray(classes, dtype=np.int64))


def _ground(x: Field, y: Field, edge: int, random: np.random.Generator) -> tuple[Field, Field]:
    """The image without shapes, (edge, edge, 3), and its mean colour, (3,)."""
    colours = random.uniform(0.15, 0.85, 3) + random.uniform(-0.12, 0.12, (2, 3))
    turn = random.uniform(0, 2 * np.pi)
    share = np.clip(0.5 + ((x - edge / 2) * np.cos(turn) + (y - edge / 2) * np.sin(turn)) / edge, 0, 1)[..., None]
    image = (colours[0] + share * (colours[1] - colours[0])).astype(np.float32)
    for _ in range(int(random.integers(0, 4))):  # lines, which are no shapes
        turn, off = random.uniform(0, np.pi), random.uniform(0.1, 0.9) * edge
        far = np.abs((x - edge / 2) * np.cos(turn) + (y - edge / 2) * np.sin(turn) + edge / 2 - off)
        covered = np.clip(random.uniform(0.5, 1.5) - far + 0.5, 0, 1).astype(np.float32)[..., None]
        image = image + covered * (random.uniform(0, 1, 3).astype(np.float32) - image)
    return image, colours.mean(axis=0).astype(np.float32)


def _covered(x: Field, y: Field, radius: float, label: int, random: np.random.Generator) -> Field:
    """How much of each pixel a shape covers, 0 to 1, (edge, edge)."""
    turn, stretch = random.uniform(-0.4, 0.4), float(np.exp(random.uniform(-0.25, 0.25)))
    across = ((np.cos(turn) * x + np.sin(turn) * y) * stretch / radius).astype(np.float32)
    along = ((np.cos(turn) * y - np.sin(turn) * x) / stretch / radius).astype(np.float32)
    distance = list(SHAPES.values())[label](across, along)
    covered: Field = np.clip(0.5 - distance * np.float32(radius / _EDGE), 0, 1)
    return covered


def _box(covered: Field) -> tuple[float, float, float, float] | None:
    """The pixels that a shape covers by half at least; None where it has shrunk to less than three either way."""
    seen = covered >= _SEEN
    columns, rows = np.flatnonzero(seen.any(axis=0)), np.flatnonzero(seen.any(axis=1))
    if len(columns) < 3 or len(rows) < 3:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _crowded(box: tuple[float, float, float, float], others: list[tuple[float, float, float, float]]) -> bool:
    if not others:
        return False
    shared = overlaps(np.asarray([box], dtype=np.float32), np.asarray(others, dtype=np.float32))
    return bool((shared > _OVERLAP).any())


def _painted(image: Field, covered: Field, ground: Field, random: np.random.Generator) -> Field:
    """The image with a shape of a colour that can be told from the ground."""
    away = random.standard_normal(3).astype(np.float32)
    away = np.where(ground > 0.5, -np.abs(away), np.abs(away)) if random.random() < 0.7 else away
    colour = np.clip(ground + away / np.linalg.norm(away) * np.float32(random.uniform(*_CONTRAST)), 0, 1)
    painted: Field = image + covered[..., None] * (colour.astype(np.float32) - image)
    return painted
