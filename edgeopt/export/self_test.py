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
from edgeopt.networks.capture import program_outputs
from edgeopt.preprocessing import Preprocessing
from edgeopt.progress import Silent
from edgeopt.types import Card, ModelState

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.arrays import Labels, Outputs, Pixels

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

    It is about the first output, whose values are counted one after the other where an image has them on several axes.
    None where they are not finite, which whoever looks at the file will say, and where they are integers such as
    classes, of which another processor may well give another.
    """
    images = images_for(state.preprocessing.resize)
    pixels = _pixels(images, state.preprocessing)
    least = state.batch_range[0]
    alone = replace(state, batch_range=(least, least))
    first = program_outputs(alone, SelfTestImages(np.repeat(pixels, least, axis=0)), Silent(), "")[0][::least]
    if first.dtype.kind != "f" or not np.isfinite(first).all():
        return None
    answers = first.reshape(len(first), -1)
    span = max(float(np.ptp(answers)), 0.1 * float(np.abs(answers).max()), 1e-6)
    decimals = _DIGITS - math.floor(math.log10(span))
    vectors = tuple(
        Vector(image, zlib.crc32(each.tobytes()), _some_pixels(each), _some_answers(answer, decimals))
        for image, each, answer in zip(images, pixels, answers, strict=True)
    )
    return SelfTest(float(f"{_TOLERANCE * span:.3g}"), vectors)


def images_of(card: Card) -> SelfTestImages:
    """The images of a card's self-test, preprocessed; none where it has no self-test."""
    vectors = card.self_test.vectors if card.self_test else ()
    preprocessing = Preprocessing.from_json(card.preprocessing)
    return SelfTestImages(_pixels([vector.image for vector in vectors], preprocessing))


def file_answers(card: Card, outputs: Outputs) -> tuple[tuple[float, ...], ...]:
    """Of what a file answered for the images of its card's self-test, the values of its first output that the card
    names; none where there is no self-test.
    """
    vectors = card.self_test.vectors if card.self_test else ()
    return tuple(
        tuple(float(f"{answer[index]:.6g}") for index, _value in vector.answers)
        for vector, answer in zip(vectors, outputs[0].reshape(len(outputs[0]), -1), strict=True)
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


def _some_answers(answers: NDArray[np.float32], decimals: int) -> tuple[tuple[int, float], ...]:
    """All values of an image, or the five largest and five spread evenly over the others, by their places."""
    chosen = set(range(len(answers)))
    if len(chosen) > _ANSWERS:
        order = np.argsort(-answers, kind="stable")
        spread = np.linspace(_ANSWERS // 2, len(order) - 1, _ANSWERS // 2).astype(int)
        chosen = {int(order[place]) for place in (*range(_ANSWERS // 2), *spread)}
    return tuple((index, round(float(answers[index]), decimals)) for index in sorted(chosen))
