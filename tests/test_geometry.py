"""Images of any shape: where their places lie in what a network sees, and the way back."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgeopt.data.prepare import preprocessing_of
from edgeopt.options import DatasetOptions, to_json
from edgeopt.preprocessing import Geometry, Preprocessing

FITS = st.sampled_from(["crop", "letterbox", "stretch"])
SIDES = st.tuples(st.integers(8, 70), st.integers(8, 70))
TURNED = {  # how a camera keeps what was upright, by the number that EXIF has for it
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def described(size: tuple[int, int], fit: str, more: int = 0) -> Preprocessing:
    frame = (size[0] + more, size[1] + more) if fit == "crop" else size
    return Preprocessing(size, resize=frame, crop=size, fit=fit, background=(0, 0, 0))  # type: ignore[arg-type]


@given(SIDES, st.integers(1, 200), st.integers(1, 200), FITS, st.integers(0, 9), st.data())
@settings(max_examples=150, deadline=None)
def test_there_and_back(
    size: tuple[int, int], height: int, width: int, fit: str, more: int, data: st.DataObject
) -> None:
    geometry = described(size, fit, more).geometry(height, width)
    places = st.tuples(st.floats(0, width), st.floats(0, height))
    points = np.array(data.draw(st.lists(places, min_size=1, max_size=5)))
    np.testing.assert_allclose(geometry.points_to_original(geometry.points_to_network(points)), points, atol=1e-6)
    boxes = np.concatenate([points, points + 1], axis=1)
    back = geometry.boxes_to_original(geometry.boxes_to_network(boxes))
    np.testing.assert_allclose(back, boxes, atol=1e-6)
    seen = geometry.points_to_network([[0, 0], [width, height]])
    if fit != "crop":  # all of the image is within the frame
        assert (seen >= 0).all()
        assert (seen <= (size[1], size[0])).all()
    else:  # and the frame is within the image
        assert (geometry.points_to_original([[0, 0], [size[1], size[0]]]) >= -1e-6).all()
        assert (geometry.points_to_original([[size[1], size[0]]]) <= np.array([width, height]) + 1e-6).all()
    clipped = geometry.boxes_to_network(boxes, clipped=True)
    assert (clipped >= 0).all()
    assert (clipped <= (size[1], size[0]) * 2).all()


@given(SIDES, st.integers(12, 120), st.integers(12, 120), FITS, st.sampled_from(sorted(TURNED)), st.data())
@settings(max_examples=150, deadline=None)
def test_a_marked_place_lands_where_the_geometry_says(
    size: tuple[int, int], height: int, width: int, fit: str, orientation: int, data: st.DataObject
) -> None:
    """As Pillow resizes it, of an image that its camera held in any way."""
    preprocessing = described(size, fit, 3)
    geometry = preprocessing.geometry(height, width)
    side_x, side_y = (max(3, round(2 / scale)) for scale in geometry.scale)
    assume(side_x < width - 2 and side_y < height - 2)
    left, top = data.draw(st.integers(1, width - side_x - 1)), data.draw(st.integers(1, height - side_y - 1))
    corners = geometry.boxes_to_network([left, top, left + side_x, top + side_y])
    around = (2.0 * max(1.0, *geometry.scale),) * 2  # what bilinear weights reach over
    assume((corners[:2] >= around).all() and (corners[2:] <= np.array([size[1], size[0]]) - around).all())
    image = Image.new("L", (width, height))
    image.paste(255, (left, top, left + side_x, top + side_y))
    turn = TURNED[orientation]
    held = image if turn is None else image.transpose(turn)
    exif = held.getexif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    held.save(file, "PNG", exif=exif)
    opened = Image.open(file)
    pixels, of_this = preprocessing.pixels_and_geometry(opened)
    assert of_this == geometry == preprocessing.geometry_of(opened)
    light = pixels[..., 0].astype(float)
    assume(light.sum() > 0)
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    landed = np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum()
    expected = geometry.points_to_network([left + side_x / 2, top + side_y / 2])
    np.testing.assert_allclose(landed, expected, atol=0.5)


def test_a_letterbox_keeps_all_of_an_image_on_its_ground() -> None:
    image = Image.new("RGB", (40, 10), (200, 0, 0))
    pixels, geometry = Preprocessing(20, 20, 20, fit="letterbox", background=(1, 2, 3)).pixels_and_geometry(image)
    assert geometry == Geometry((10, 40), (5, 20), (20, 20), (0, 7))
    assert geometry.scale == (0.5, 0.5)
    assert (pixels[7:12] == (200, 0, 0)).all()
    assert (pixels[:7] == (1, 2, 3)).all()
    assert (pixels[12:] == (1, 2, 3)).all()


def test_stretching_has_a_scale_for_each_side() -> None:
    pixels, geometry = described((30, 10), "stretch").pixels_and_geometry(Image.new("RGB", (40, 10), "white"))
    assert geometry.scale == (0.25, 3.0)
    assert (pixels == 255).all()


def test_the_middle_of_a_wide_image_is_cut_wide() -> None:
    image = np.zeros((24, 100, 3), dtype=np.uint8)
    image[:, 2:98] = 255
    preprocessing = Preprocessing((24, 96), resize=(24, 96), crop=(24, 96))
    assert preprocessing.shape == (24, 96, 3)
    assert (preprocessing.pixels(image) == 255).all()


@given(st.integers(1, 40), st.integers(1, 40), FITS)
@settings(max_examples=40, deadline=None)
def test_grey_is_pillows_grey_of_what_would_be_seen_in_colour(width: int, height: int, fit: str) -> None:
    colours = described((12, 20), fit)
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8))
    grey = replace(colours, channel_order="grey", mean=(0.5,), std=(0.25,))
    pixels = grey.pixels(image)
    assert pixels.shape == (12, 20, 1)
    np.testing.assert_array_equal(pixels[..., 0], colours.pixels(image.convert("L"))[..., 0])
    assert grey.normalize(pixels[np.newaxis]).shape == (1, 1, 12, 20)


def test_a_card_says_of_other_shapes_what_it_says_of_squares() -> None:
    square = Preprocessing(224, 224, 224)
    assert "fit" not in square.to_json()
    assert Preprocessing((224, 224), (224, 224), (224, 224)) == square
    wide = Preprocessing((48, 192), (48, 192), (48, 192), (0.5,), (0.2,), channel_order="grey", fit="letterbox")
    told = wide.to_json()
    assert (told["image_size"], told["fit"], told["channel_order"]) == ((48, 192), "letterbox", "grey")
    assert Preprocessing.from_json({name: list(v) if isinstance(v, tuple) else v for name, v in told.items()}) == wide
    assert wide.at_size((24, 96)).size == (24, 96)


def options(**values: object) -> DatasetOptions:
    return DatasetOptions.model_validate(values)


def test_options_of_squares_are_written_as_before() -> None:
    assert to_json(options(image_size=[64, 64])) == to_json(options(image_size=64))
    assert {"fit", "channels"}.isdisjoint(to_json(options()))
    wide = to_json(options(image_size=[48, 192], channels=1, fit="stretch"))
    assert (wide["image_size"], wide["channels"], wide["fit"], wide["mean"]) == ([48, 192], 1, "stretch", [0.459])
    assert options(**wide) == options(image_size=[48, 192], channels=1, fit="stretch")


def test_the_shorter_side_of_a_wide_image_and_what_an_image_covers() -> None:
    assert preprocessing_of(options(image_size=[48, 192], resize=60)).resize == (60, 240)
    assert preprocessing_of(options(image_size=[48, 192], resize=[50, 192])).resize == (50, 192)
    assert preprocessing_of(options(image_size=48, resize=60)).resize == 60


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"image_size": 4}, "should be greater than or equal to 8, and is 4"),
        ({"image_size": [48, 9000]}, "should be less than or equal to 4096, and is 9000"),
        ({"image_size": [48]}, r"a whole number for a square, or \[height, width\]"),
        ({"image_size": "48x192"}, r"a whole number for a square, or \[height, width\]"),
        ({"image_size": [48, 192], "resize": [50, 100]}, r"resize \(50 × 100 px\) is smaller than image_size"),
        ({"fit": "letterbox", "resize": 256}, "keeps the whole image: leave it out"),
        ({"channels": 1, "mean": [0.4, 0.4, 0.4]}, "mean has 3 numbers, and images have 1 channel"),
        ({"mean": [0.5], "std": [0.5]}, "mean has 1 numbers, and images have 3 channels"),
        ({"mean": [0.5, 0.5]}, "write 3 numbers, or 1 where images are grey"),
        ({"channels": 1, "augmentation": {"saturation": 0.3}}, "changes nothing in grey images"),
        ({"channels": 4}, "Input should be 3 or 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(values: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        options(**values)
