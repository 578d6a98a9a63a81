"""Generated images: one shape among clutter, hard enough that a network leaves some of them wrong."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.data.images import ArrayImages
from edgeopt.plugins import RawDataset, usable_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Pixels

    Field = NDArray[np.floating[Any]]  # (n, edge, edge), or broadcast against it; what is drawn is float32
    Distance = Callable[[Field, Field], Field]

_CHUNK = 96  # images drawn at once: each array of them fits a processor's cache
_RADIUS = (0.32, 0.45)  # of the shape, as a share of the image's edge
_CONTRAST = (0.6, 1.0)  # between the colours of shape and ground
_NOISE = (0.0, 0.04)
_TURN = 0.35  # either way, in radians: whole turns would need many more images to learn from
_SHEAR = 0.1
_ASPECT = 0.12  # of the logarithm of the stretch in one direction, and the squeeze in the other
_STRANGERS = 1  # pieces of shapes that are not asked for
_COVERS = 1  # bars, and as many discs, before the shape
_TEXTURE = (0.0, 0.15)  # of a surface: how far its second colour goes from its first
_EDGES = 1.5  # px over which a shape fades into what is behind it


def make_shapes(images: int, edge: int, seed: int) -> RawDataset:
    """Images, uint8 (n, edge, edge, 3), of twelve classes in turn, all from the seed.

    Shape and ground have a texture and a colour each. The shape's place, turn, size, proportion and shear are drawn for
    each image. Bars and discs cover parts of it, pieces of other shapes lie beside it, noise and uneven light lie
    over all.
    """
    labels = np.arange(images, dtype=np.int64) % len(SHAPES)

    def chunk(start: int) -> Pixels:
        return _draw(labels[start : start + _CHUNK], edge, np.random.default_rng([seed, start]))

    with ThreadPoolExecutor(usable_cores()) as pool:  # numpy computes outside Python's lock
        chunks = list(pool.map(chunk, range(0, images, _CHUNK)))
    return RawDataset(tuple(SHAPES), {"train": ArrayImages(np.concatenate(chunks), labels)})


# ---- shapes: a function of place that is below 0 inside, in units of the shape's radius ----------------------------


def _polygon(corners: int) -> Distance:
    sector = 2 * np.pi / corners

    def distance(x: Field, y: Field) -> Field:
        angle = np.arctan2(y, x)
        beside = np.mod(angle + sector / 2, sector) - sector / 2
        return np.hypot(x, y) * np.cos(beside) - np.float32(np.cos(sector / 2))

    return distance


def _star(points: int, inner: float) -> Distance:
    sector = 2 * np.pi / points
    # the line from a point, at radius 1, to the notch beside it, at radius `inner`
    notch_x, notch_y = inner * np.cos(sector / 2), inner * np.sin(sector / 2)
    normal_x, normal_y = notch_y, 1 - notch_x
    length = np.hypot(normal_x, normal_y)

    def distance(x: Field, y: Field) -> Field:
        beside = np.abs(np.mod(np.arctan2(y, x) + sector / 2, sector) - sector / 2)
        radius = np.hypot(x, y)
        along, across = radius * np.cos(beside), radius * np.sin(beside)
        return ((along - 1) * np.float32(normal_x / length) + across * np.float32(normal_y / length)).astype(np.float32)

    return distance


def _circle(x: Field, y: Field) -> Field:
    return np.hypot(x, y) - np.float32(0.9)


def _ring(x: Field, y: Field) -> Field:
    return np.abs(np.hypot(x, y) - np.float32(0.7)) - np.float32(0.22)


def _crescent(x: Field, y: Field) -> Field:
    return np.maximum(np.hypot(x, y) - np.float32(0.95), np.float32(0.8) - np.hypot(x - np.float32(0.45), y))


def _half(x: Field, y: Field) -> Field:
    return np.maximum(np.hypot(x + np.float32(0.35), y) - np.float32(0.95), -x - np.float32(0.35))


def _cross(x: Field, y: Field) -> Field:
    across, along = np.minimum(np.abs(x), np.abs(y)), np.maximum(np.abs(x), np.abs(y))
    return np.maximum(across - np.float32(0.32), along - np.float32(0.95))


def _corner(x: Field, y: Field) -> Field:
    foot = np.maximum(np.abs(y - np.float32(0.55)) - np.float32(0.3), np.abs(x) - np.float32(0.85))
    leg = np.maximum(np.abs(x + np.float32(0.55)) - np.float32(0.3), np.abs(y) - np.float32(0.85))
    return np.minimum(foot, leg)


def _heart(x: Field, y: Field) -> Field:
    side = np.abs(x) * np.float32(1.15)
    return np.hypot(side, y * np.float32(1.1) - np.float32(0.75) * np.sqrt(side)) - np.float32(0.85)


SHAPES: dict[str, Distance] = {
    "triangle": _polygon(3),
    "square": _polygon(4),
    "pentagon": _polygon(5),
    "hexagon": _polygon(6),
    "circle": _circle,
    "half": _half,
    "ring": _ring,
    "crescent": _crescent,
    "cross": _cross,
    "corner": _corner,
    "heart": _heart,
    "star": _star(5, 0.5),
}


# ---- images --------------------------------------------------------------------------------------------------------


def _draw(labels: NDArray[np.int64], edge: int, random: np.random.Generator) -> Pixels:
    """Uint8 (n, edge, edge, 3)."""
    count = len(labels)
    ground = _textured(count, edge, random)
    for _ in range(_STRANGERS):  # cut off by the image's border
        others = random.integers(0, len(SHAPES), count)
        ground = _blend(ground, _textured(count, edge, random), _shape(others, edge, random, at_border=True))
    # colours of shape and ground are moved apart by a contrast, so that one can be told from the other
    contrast = _uniform(random, *_CONTRAST, (count, 1, 1, 1))
    shift = _unit(random.standard_normal((count, 1, 1, 3), dtype=np.float32))
    shape = _textured(count, edge, random)
    shape = (
        ground.mean(axis=(1, 2), keepdims=True)
        + 0.6 * (shape - shape.mean(axis=(1, 2), keepdims=True))
        + contrast * shift
    )
    images = _blend(ground, shape, _shape(labels, edge, random, at_border=False))
    images = _blend(images, _textured(count, edge, random), _bars(count, edge, random))
    light = 1 + _uniform(random, -0.35, 0.35, (count, 1, 1, 1)) * _slope(count, edge, random)[..., None]
    noise = random.standard_normal(images.shape, dtype=np.float32) * _uniform(random, *_NOISE, (count, 1, 1, 1))
    return np.rint(255 * np.clip(images * light + noise, 0, 1)).astype(np.uint8)


def _shape(labels: NDArray[np.int64], edge: int, random: np.random.Generator, *, at_border: bool) -> Field:
    """How much of each pixel the shape covers, 0 to 1, (n, edge, edge)."""
    count = len(labels)
    radius = _uniform(random, *_RADIUS, (count, 1, 1))
    x: Field
    y: Field
    if at_border:
        angle = _uniform(random, 0, 2 * np.pi, (count, 1, 1))
        x, y = 0.5 + 0.62 * np.cos(angle), 0.5 + 0.62 * np.sin(angle)
        radius = radius * 0.8
    else:
        x, y = (_uniform(random, radius, 1 - radius) for _ in range(2))
    turn, shear = (_uniform(random, -most, most, (count, 1, 1)) for most in (_TURN, _SHEAR))
    aspect = np.exp(_uniform(random, -_ASPECT, _ASPECT, (count, 1, 1)))
    rows, columns = _grid(edge)
    left, up = (columns - x) / radius, (rows - y) / radius
    across = (np.cos(turn) * left + np.sin(turn) * up) * aspect
    along = (np.cos(turn) * up - np.sin(turn) * left) / aspect + shear * across
    distance = np.empty((count, edge, edge), dtype=np.float32)
    for label, function in enumerate(SHAPES.values()):
        chosen = labels == label
        distance[chosen] = function(across[chosen], along[chosen])
    return np.clip(0.5 - distance * (radius * edge / _EDGES), 0, 1)


def _textured(count: int, edge: int, random: np.random.Generator) -> Field:
    """Two colours, mixed by waves or by smooth noise, (n, edge, edge, 3)."""
    waves = _waves(count, edge, random)
    clouds = _clouds(count, edge, random)
    pattern = np.where(_uniform(random, 0, 1, (count, 1, 1)) < 0.5, waves, clouds)[..., None]
    colours = _uniform(random, 0.1, 0.9, (2, count, 1, 1, 3))
    spread = _uniform(random, *_TEXTURE, (count, 1, 1, 1))
    return colours[0] + spread * (colours[1] - colours[0]) * pattern


def _waves(count: int, edge: int, random: np.random.Generator) -> Field:
    """Stripes of any direction and width, 0 to 1, (n, edge, edge)."""
    rows, columns = _grid(edge)
    turn, phase = _uniform(random, 0, 2 * np.pi, (2, count, 1, 1))
    frequency = _uniform(random, 6, 50, (count, 1, 1))
    place = frequency * (np.cos(turn) * columns + np.sin(turn) * rows)
    return 0.5 + 0.5 * np.sin(place + phase)


def _clouds(count: int, edge: int, random: np.random.Generator) -> Field:
    """Smooth noise, 0 to 1, (n, edge, edge): coarse values, repeated and blurred by averaging neighbours."""
    cells = int(random.integers(4, 11))
    coarse = _uniform(random, 0, 1, (count, cells, cells))
    place = np.linspace(0, cells - 1, edge)
    low = np.minimum(place.astype(int), cells - 2)
    part = (place - low).astype(np.float32)
    rows = coarse[:, low] * (1 - part)[:, None] + coarse[:, low + 1] * part[:, None]
    return rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part


def _bars(count: int, edge: int, random: np.random.Generator) -> Field:
    """Strips and discs that lie before the shape, 0 to 1, (n, edge, edge)."""
    rows, columns = _grid(edge)
    covered = np.zeros((count, edge, edge), dtype=np.float32)
    for _ in range(_COVERS):
        turn = _uniform(random, 0, 2 * np.pi, (count, 1, 1))
        x, y = _uniform(random, 0.2, 0.8, (2, count, 1, 1))
        width = _uniform(random, 0.015, 0.045, (count, 1, 1))
        off = np.abs(np.cos(turn) * (columns - x) + np.sin(turn) * (rows - y)) - width
        covered = np.maximum(covered, np.clip(0.5 - off * (edge / _EDGES), 0, 1))
        x, y = _uniform(random, 0.1, 0.9, (2, count, 1, 1))
        off = np.hypot(columns - x, rows - y) - _uniform(random, 0.03, 0.1, (count, 1, 1))
        covered = np.maximum(covered, np.clip(0.5 - off * (edge / _EDGES), 0, 1))
    return covered


def _slope(count: int, edge: int, random: np.random.Generator) -> Field:
    """A plane through 0 in the middle, -1 to 1, of any direction, (n, edge, edge)."""
    rows, columns = _grid(edge)
    turn = _uniform(random, 0, 2 * np.pi, (count, 1, 1))
    return np.cos(turn) * (2 * columns - 1) + np.sin(turn) * (2 * rows - 1)


def _blend(behind: Field, before: Field, covered: Field) -> Field:
    return behind + covered[..., None] * (before - behind)


def _grid(edge: int) -> tuple[Field, Field]:
    """Rows (1, edge, 1) and columns (1, 1, edge) of the pixels' middles, 0 to 1."""
    place = (np.arange(edge, dtype=np.float32) + np.float32(0.5)) / np.float32(edge)
    return place[None, :, None], place[None, None, :]


def _unit(vectors: Field) -> Field:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _uniform(
    random: np.random.Generator, low: float | Field, high: float | Field, shape: tuple[int, ...] = ()
) -> Field:
    """Evenly drawn; in float32, in which all is computed: it is twice as fast."""
    between = random.random(shape or np.shape(low), dtype=np.float32)
    return np.asarray(low + (high - low) * between, dtype=np.float32)
