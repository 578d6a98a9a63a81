"""The one preprocessing: geometry in uint8, then arithmetic."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgeopt.errors import DataError
from edgeopt.preprocessing import DEPTH, Preprocessing

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


def plainly(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """What `pixels` must give: resized whole, then cut."""
    scale = preprocessing.resize / min(image.size)
    width, height = (max(preprocessing.crop, round(side * scale)) for side in image.size)
    whole = image.convert("RGB").resize((width, height), Image.Resampling[preprocessing.interpolation.upper()])
    left, top = (width - preprocessing.crop) // 2, (height - preprocessing.crop) // 2
    return np.asarray(whole.crop((left, top, left + preprocessing.crop, top + preprocessing.crop)))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from(["nearest", "bilinear", "bicubic"]), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_ordinary_images_are_resized_whole_and_cut(width: int, height: int, interpolation: str, more: int) -> None:
    preprocessing = Preprocessing(16, resize=16 + more, crop=16, interpolation=interpolation)
    image = noise(width, height)
    np.testing.assert_array_equal(preprocessing.pixels(image), plainly(image, preprocessing))


@pytest.mark.parametrize("size", [(2, 9000), (9000, 2), (3, 15_000)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_a_very_long_image_is_cut_before_it_grows_and_looks_the_same(size: tuple[int, int], interpolation: str) -> None:
    preprocessing = Preprocessing(64, resize=72, crop=64, interpolation=interpolation)
    image = noise(*size)
    difference = np.abs(preprocessing.pixels(image).astype(int) - plainly(image, preprocessing))
    assert difference.max() <= 1


def test_an_image_of_one_by_twenty_thousand_px_takes_little_memory() -> None:
    program = """
import resource
from PIL import Image
from edgeopt.preprocessing import Preprocessing
Preprocessing(224, 224, 224).pixels(Image.new("RGB", (9, 9)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert Preprocessing(224, 224, 224).pixels(Image.new("RGB", (1, 20_000))).shape == (224, 224, 3)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < 64  # MiB


@pytest.mark.parametrize("dtype", [np.uint16, np.int64, np.float32, np.float64, bool])
def test_arrays_of_other_types_are_refused(dtype: type) -> None:
    with pytest.raises(DataError, match=f"array of {np.dtype(dtype)}"):
        SQUARE.pixels(np.ones((8, 8), dtype=dtype))


@pytest.mark.parametrize("shape", [(8,), (8, 8, 1), (3, 8, 8), (2, 8, 8, 3)])
def test_arrays_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="with shape"):
        SQUARE.pixels(np.ones(shape, dtype=np.uint8))


def clear(mode: str, below: int) -> Image.Image:
    """An image that is transparent everywhere, with grey of `below` under it."""
    if mode in ("RGBA", "LA"):
        return Image.new(mode, (8, 8), (*([below] * (len(mode) - 1)), 0))
    if mode == "PA":
        return clear("RGBA", below).convert("PA")
    image = Image.new(mode, (8, 8), (below,) * 3 if mode == "RGB" else below)
    image.info["transparency"] = (below,) * 3 if mode == "RGB" else below
    if mode == "P":
        image.putpalette([below] * 768)
    return image


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "L", "RGB", "I;16"])
@pytest.mark.parametrize("background", [(255, 255, 255), (3, 200, 90)])
def test_what_lies_below_transparency_is_not_seen(mode: str, background: tuple[int, int, int]) -> None:
    preprocessing = Preprocessing(8, 8, 8, background=background)
    for below in (0, 77, 255):
        assert (preprocessing.pixels(clear(mode, below)) == background).all()


def test_half_transparent_is_half_the_ground_and_opaque_is_as_it_was() -> None:
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    assert (SQUARE.pixels(half) == 127).all()
    solid = noise(8, 8)
    opaque = solid.convert("RGBA")
    np.testing.assert_array_equal(SQUARE.pixels(opaque), SQUARE.pixels(solid))
    assert SQUARE.to_json()["background"] == (255, 255, 255)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_of_16_bit_images_is_scaled_by_its_depth(bits: int) -> None:
    ramp = np.linspace(0, 2**bits - 1, 64).astype(np.uint16).reshape(8, 8)
    expected = (ramp >> (bits - 8)).astype(np.uint8)
    told = Image.fromarray(ramp)
    told.info[DEPTH] = bits  # as `open_image` leaves it
    for image, preprocessing in ((Image.fromarray(ramp), Preprocessing(8, 8, 8, grey_bits=bits)), (told, SQUARE)):
        np.testing.assert_array_equal(preprocessing.pixels(image)[..., 0], expected)


def test_values_above_the_stated_depth_are_refused() -> None:
    deep = Image.fromarray(np.full((8, 8), 5000, dtype=np.uint16))
    with pytest.raises(DataError, match=r"value 5000, and grey_bits = 12 allows up to 4095[\s\S]*grey_bits = 13"):
        Preprocessing(8, 8, 8, grey_bits=12).pixels(deep)
    with pytest.raises(DataError, match="unknown range"):
        SQUARE.pixels(Image.new("F", (8, 8)))
