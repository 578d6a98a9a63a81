"""The self-test of a card: three images that any language can draw, and what the program answers for them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.cards.card import DrawnImage, SelfTest, Vector
from edgeopt.cards.images import drawn, images_for
from edgeopt.networks.capture import program_logits
from edgeopt.preprocessing import Preprocessing
from edgeopt.progress import Silent
from edgeopt.types import Card, ModelState

if TYPE_CHECKING:
    from edgeopt.arrays import Labels, Logits, Pixels

_ANSWERS = 10
_TOLERANCE = 0.05  # of the logits' range: an int8 file may round otherwise on another processor, in every layer
_DIGITS = 3  # of the logits' range: what lies beyond depends on the processor, and would be in the file's bytes


@dataclass(frozen=True, eq=False)
class SelfTestImages:
    """The images of a self-test, preprocessed, as a split: uint8 (n, height, width, channels)."""

    images: Pixels

    @property
    def labels(self) -> Labels:
        """Zeros, int64 (n,): nobody says what these images show."""
        return np.zeros(len(self.images), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, indices: Sequence[int] | slice) -> Pixels:
        """The chosen images."""
        return self.images[indices if isinstance(indices, slice) else np.asarray(indices, dtype=np.intp)]


def self_test_of(state: ModelState) -> SelfTest | None:
    """The self-test that a card of the state's files carries, with the state's own answers.

    None where they are not finite, which whoever looks at the file will say.
    """
    images = images_for(state.preprocessing.resize)
    pixels = _pixels(images, state.preprocessing)
    least = state.batch_range[0]
    alone = replace(state, batch_range=(least, least))
    logits = program_logits(alone, SelfTestImages(np.repeat(pixels, least, axis=0)), Silent(), "")[::least]
    if not np.isfinite(logits).all():
        return None
    span = max(float(np.ptp(logits)), 0.1 * float(np.abs(logits).max()), 1e-6)
    decimals = _DIGITS - math.floor(math.log10(span))
    vectors = tuple(
        Vector(image, zlib.crc32(each.tobytes()), _some_pixels(each), _some_answers(answer, decimals))
        for image, each, answer in zip(images, pixels, logits, strict=True)
    )
    return SelfTest(float(f"{_TOLERANCE * span:.3g}"), vectors)


def images_of(card: Card) -> SelfTestImages:
    """The images of a card's self-test, preprocessed; none where it has no self-test."""
    vectors = card.self_test.vectors if card.self_test else ()
    preprocessing = Preprocessing.from_json(card.preprocessing)
    return SelfTestImages(_pixels([vector.image for vector in vectors], preprocessing))


def file_answers(card: Card, logits: Logits) -> tuple[tuple[float, ...], ...]:
    """Of what a file answered for the images of its card's self-test, float32 (n, classes), the logits that the card
    names; none where there is no self-test.
    """
    vectors = card.self_test.vectors if card.self_test else ()
    return tuple(
        tuple(float(f"{answer[index]:.6g}") for index, _value in vector.answers)
        for vector, answer in zip(vectors, logits, strict=True)
    )


def _pixels(images: Sequence[DrawnImage], preprocessing: Preprocessing) -> Pixels:
    made = np.empty((len(images), *preprocessing.shape), np.uint8)
    for place, image in enumerate(images):
        made[place] = preprocessing.pixels(drawn(image))
    return made


def _some_pixels(pixels: Pixels) -> tuple[tuple[int, ...], ...]:
    """The middle and four places around it."""
    (top, middle, bottom), (left, centre, right) = (
        (side // 6, side // 2, side - 1 - side // 6) for side in pixels.shape[:2]
    )
    places = ((top, left), (top, right), (middle, centre), (bottom, left), (bottom, right))
    return tuple((row, column, *map(int, pixels[row, column])) for row, column in places)


def _some_answers(logits: Logits, decimals: int) -> tuple[tuple[int, float], ...]:
    """All logits, or the five largest and five spread evenly over the others, by their places."""
    chosen = set(range(len(logits)))
    if len(chosen) > _ANSWERS:
        order = np.argsort(-logits, kind="stable")
        spread = np.linspace(_ANSWERS // 2, len(order) - 1, _ANSWERS // 2).astype(int)
        chosen = {int(order[place]) for place in (*range(_ANSWERS // 2), *spread)}
    return tuple((index, round(float(logits[index]), decimals)) for index in sorted(chosen))
