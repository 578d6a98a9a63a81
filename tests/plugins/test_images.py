"""The data sets `digits`, `shapes` and `image-folder`."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from edgeopt.data.cache import load_data
from edgeopt.data.prepare import prepare
from edgeopt.errors import DataError
from edgeopt.progress import Silent
from edgeopt_images.options import DigitsOptions, ImageFolderOptions, ShapesOptions
from edgeopt_images.plugin import edgeopt_datasets, fingerprint_digits, load_digits, load_shapes
from edgeopt_images.shapes import SHAPES

FOLDER = next(each for each in edgeopt_datasets() if each.name == "image-folder")
load_folder, fingerprint_folder = FOLDER.load, FOLDER.fingerprint


def test_digits_are_real_and_stratified(tmp_path: Path) -> None:
    options = DigitsOptions(image_size=16)
    raw = load_digits(options)
    assert raw.classes == tuple("0123456789")
    assert len(raw.splits["train"]) == 1797
    assert raw.splits["train"][0].shape == (8, 8) and raw.splits["train"].images.max() == 255
    values = prepare(raw, options, tmp_path, Silent())
    assert {name: split.count for name, split in values.splits.items()} == {
        "train": 1131,
        "calibration": 126,
        "validation": 270,
        "test": 270,
    }
    assert min(values.splits["test"].per_class.values()) >= 26
    assert load_data(tmp_path, options, lambda: raw).test.pixels([0]).shape == (1, 16, 16, 3)
    assert fingerprint_digits(options) == fingerprint_digits(DigitsOptions())


def test_shapes_follow_from_their_seed() -> None:
    options = ShapesOptions(image_size=32, images=250, drawn_size=32)
    raw = load_shapes(options)
    images = raw.splits["train"].images
    assert images.shape == (250, 32, 32, 3) and images.dtype == np.uint8
    assert raw.classes == tuple(SHAPES) and len(SHAPES) == 12
    assert set(np.bincount(raw.splits["train"].labels)) == {20, 21}
    np.testing.assert_array_equal(load_shapes(options).splits["train"].images, images)
    other = load_shapes(options.model_copy(update={"seed": 1})).splits["train"].images
    assert len({image.tobytes() for image in (*images, *other)}) == 500
    assert images.std(axis=(1, 2, 3)).min() > 5  # none is empty


def test_shapes_have_the_area_of_their_name() -> None:
    """In squares of their radius, counted on a fine grid."""
    place = np.linspace(-1.5, 1.5, 601, dtype=np.float32)
    x, y = place[None, None, :], place[None, :, None]
    cell = float(place[1] - place[0]) ** 2
    areas = {name: float((inside(x, y) < 0).sum()) * cell for name, inside in SHAPES.items()}
    expected = {
        **{
            name: n / 2 * np.sin(2 * np.pi / n)
            for n, name in ((3, "triangle"), (4, "square"), (5, "pentagon"), (6, "hexagon"))
        },
        "circle": np.pi * 0.9**2,
        "ring": 2 * np.pi * 0.7 * 0.44,
        "cross": 2 * 1.9 * 0.64 - 0.64**2,
        "star": 5 * 0.5 * np.sin(np.pi / 5),
    }
    for name, area in expected.items():
        assert areas[name] == pytest.approx(area, rel=0.02), name
    assert 0.4 < areas["half"] / (np.pi * 0.95**2) < 0.6
    assert areas["corner"] < areas["square"] and areas["crescent"] < areas["half"]
    assert areas["heart"] > 1


def write(file: Path, shade: int = 0, mode: str = "RGB", size: tuple[int, int] = (12, 9)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, shade if mode == "L" else (shade, 10, 200)).save(file)
    return file


def folders(root: Path, count: int = 6, names: tuple[str, ...] = ("dog", "cat")) -> Path:
    for name in names:
        for index in range(count):
            write(root / name / f"{index}.png", index + 20 * len(name))
    return root


def error(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        fingerprint_folder(ImageFolderOptions(path=root))
    with pytest.raises(DataError) as again:
        load_folder(ImageFolderOptions(path=root))
    assert str(again.value) == str(caught.value)
    return str(caught.value)


def test_one_folder_of_class_folders(tmp_path: Path) -> None:
    root = folders(tmp_path / "pets")
    write(root / "cat" / "kittens" / "tiny" / "deep.JPG", 250)
    write(root / "cat" / "grey.bmp", 99, "L")
    for ignored in ("cat/.hidden.png", ".cache/0.png", "cat/.thumbnails/0.png"):
        write(root / ignored)
    (root / "cat" / "notes.txt").write_text("not an image")
    raw = load_folder(ImageFolderOptions(path=root))
    assert raw.classes == ("cat", "dog")
    assert {name: np.bincount(split.labels).tolist() for name, split in raw.splits.items()} == {"train": [8, 6]}
    assert {Path(file.name).name for file in raw.splits["train"].files} >= {"deep.JPG", "grey.bmp"}
    assert not any("hidden" in file.name or "thumb" in str(file) for file in raw.splits["train"].files)
    assert raw.splits["train"][0].size == (12, 9)


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_split_folders(tmp_path: Path, validation: str) -> None:
    for split, count in (("train", 8), (validation, 3), ("test", 2)):
        folders(tmp_path / split, count)
    options = ImageFolderOptions(path=tmp_path, image_size=8)
    raw = load_folder(options)
    assert {name: len(images) for name, images in raw.splits.items()} == {"train": 16, "validation": 6, "test": 4}
    (tmp_path / "out").mkdir()
    values = prepare(raw, options, tmp_path / "out", Silent())
    assert values.splits["test"].per_class == {"cat": 2, "dog": 2}
    assert values.duplicates == {"validation": 6, "test": 4}  # the same shades stand in train/


def test_missing_splits_are_drawn(tmp_path: Path) -> None:
    folders(tmp_path / "train", 20)
    folders(tmp_path / "test", 2)
    options = ImageFolderOptions(path=tmp_path, image_size=8)
    (tmp_path / "out").mkdir()
    values = prepare(load_folder(options), options, tmp_path / "out", Silent())
    assert values.splits["test"].count == 4
    assert values.splits["validation"].per_class == {"cat": 3, "dog": 3}


def test_upright_images(tmp_path: Path) -> None:
    folders(tmp_path, 8)
    sideways = Image.new("RGB", (8, 8))
    sideways.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the top of the scene is on the right
    sideways.save(tmp_path / "cat" / "0.png", exif=exif)
    options = ImageFolderOptions(path=tmp_path, image_size=8)
    (tmp_path / ".out").mkdir()
    prepare(load_folder(options), options, tmp_path / ".out", Silent())
    bundle = load_data(tmp_path / ".out", options, lambda: load_folder(options))
    training = bundle.training
    corners = [
        tuple(np.argwhere(pixels.min(axis=-1) == 255)[0])
        for split in (training.train, training.calibration, training.validation, bundle.test)
        for pixels in split.pixels(slice(None))
        if (pixels.min(axis=-1) == 255).any()
    ]
    assert corners == [(0, 7)]


def test_a_missing_folder(tmp_path: Path) -> None:
    assert "gone does not exist" in error(tmp_path / "gone")
    assert f"looked in {Path.cwd()}, because paths count from the folder where edgeopt is started" in error(
        Path("gone")
    )
    assert "looked in" not in error(tmp_path / "gone")
    assert "is a file" in error(write(tmp_path / "one.png"))


def test_folders_that_do_not_hold_what_they_must(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no class folders: it is empty" in error(tmp_path / "empty")
    write(tmp_path / "loose" / "1.png")
    assert "1 images lie in it directly" in error(tmp_path / "loose")
    folders(tmp_path / "hollow", names=("a", "b"))
    (tmp_path / "hollow" / "c").mkdir()
    text = error(tmp_path / "hollow")
    assert "no images in c/" in text and ".jpeg" in text


def test_split_folders_that_do_not_fit_together(tmp_path: Path) -> None:
    folders(tmp_path / "one" / "train", names=("a", "b"))
    folders(tmp_path / "one" / "test", names=("b", "c"))
    text = error(tmp_path / "one")
    assert "other classes than train/" in text and "lacks a" in text and "also has c" in text
    folders(tmp_path / "two" / "test")
    assert "holds test/ but no train/" in error(tmp_path / "two")
    for name in ("train", "val", "valid"):
        folders(tmp_path / "three" / name)
    assert "val/ and valid/, both for the validation split" in error(tmp_path / "three")


def test_a_file_that_is_not_a_image_is_named_or_skipped(tmp_path: Path) -> None:
    root = folders(tmp_path / "pets", 9)
    (root / "dog" / "3.png").write_bytes(b"hello")
    options = ImageFolderOptions(path=root, image_size=8)
    with pytest.raises(DataError, match=r"3\.png cannot be read: not an image"):
        prepare(load_folder(options), options, tmp_path, Silent())
    skipping = options.model_copy(update={"on_error": "skip"})
    values = prepare(load_folder(skipping), skipping, tmp_path, Silent())
    assert len(values.skipped) == 1 and "dog/3.png" in values.skipped[0]
    assert sum(split.count for split in values.splits.values()) == 17


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders(tmp_path / "pets")

    def denied(path: Path) -> Any:  # root may read everything, so permissions alone prove nothing
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", denied)
    monkeypatch.setattr(Path, "iterdir", denied)
    assert "pets cannot be read: Permission denied" in error(root)


def test_the_fingerprint_follows_the_images_and_not_their_place(tmp_path: Path) -> None:
    root = folders(tmp_path / "pets")
    before = fingerprint_folder(ImageFolderOptions(path=root))
    (root / "cat" / ".DS_Store").write_bytes(b"x")
    root = root.rename(tmp_path / "moved")
    assert fingerprint_folder(ImageFolderOptions(path=root)) == before
    write(root / "cat" / "3.png", 211)
    os.utime(root / "cat" / "3.png", ns=(1, 1))
    changed = fingerprint_folder(ImageFolderOptions(path=root))
    (root / "cat" / "3.png").unlink()
    assert len({before, changed, fingerprint_folder(ImageFolderOptions(path=root))}) == 3


def test_the_path_must_be_given() -> None:
    with pytest.raises(ValidationError, match="path"):
        ImageFolderOptions()  # type: ignore[call-arg]
