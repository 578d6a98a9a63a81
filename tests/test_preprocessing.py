"""The one preprocessing: geometry in uint8, then arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgeopt.preprocessing import Preprocessing

SQUARE = Preprocessing(image_size=8, resize=8, crop=8)


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from(["RGB", "L", "RGBA", "P", "1", "LA", "I;16"]))
@settings(max_examples=60)
def test_any_image_becomes_the_square(width: int, height: int, mode: str) -> None:
    pixels = Preprocessing(image_size=8, resize=10, crop=8).pixels(Image.new(mode, (width, height)))
    assert pixels.shape == (8, 8, 3)
    assert pixels.dtype == np.uint8


def test_the_middle_of_the_shorter_side() -> None:
    image = np.zeros((8, 24, 3), dtype=np.uint8)
    image[:, 8:16] = 255
    assert (SQUARE.pixels(image) == 255).all()


def test_images_stand_upright() -> None:
    image = Image.new("RGB", (8, 16), "black")
    image.paste((255, 0, 0), (0, 0, 8, 8))
    exif = image.getexif()
    exif[0x0112] = 3  # upside down
    import io

    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    pixels = Preprocessing(image_size=8, resize=8, crop=8).pixels(Image.open(file))
    upper, lower = pixels[:2, :, 0].mean(), pixels[-2:, :, 0].mean()
    assert lower > upper


def test_normalize_is_mean_and_standard_deviation() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), dtype=np.uint8)
    planes = SQUARE.normalize(pixels)
    expected = (pixels / 255.0 - np.array(SQUARE.mean)) / np.array(SQUARE.std)
    np.testing.assert_allclose(planes, expected.transpose(0, 3, 1, 2), atol=1e-6)
    assert planes.dtype == np.float32
    assert planes.flags.c_contiguous


def test_the_card_tells_all() -> None:
    assert set(SQUARE.to_json()) >= {"image_size", "resize", "crop", "mean", "std", "channel_order"}
    assert Preprocessing(**SQUARE.to_json()) == SQUARE
    assert SQUARE.scale_and_offset()[0] == pytest.approx(tuple(1 / (255 * std) for std in SQUARE.std))
