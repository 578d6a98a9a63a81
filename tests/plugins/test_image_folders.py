"""Folders as people have them: splits under other names, classes called as splits are, links, other files, odd names."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeopt.data.prepare import prepare
from edgeopt.errors import DataError
from edgeopt.json_values import to_text
from edgeopt.progress import Silent
from edgeopt.types import RawDataset
from edgeopt_images.options import ImageFolderOptions
from edgeopt_images.plugin import edgeopt_datasets

FOLDER = next(each for each in edgeopt_datasets() if each.name == "image-folder")
fingerprint_folder, load_folder, survey_folder = FOLDER.fingerprint, FOLDER.load, FOLDER.survey


def fill(folder: Path, count: int = 5, suffix: str = ".png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        name = str(folder / f"{index}{suffix}")
        shade = sum(os.fsencode(name)) % 200 + index
        Image.new("RGB", (9, 9), (shade, index, 7)).save(folder / f"{index}{suffix}", "PNG")
    return folder


def pets(root: Path, count: int = 5) -> Path:
    fill(root / "cat", count)
    fill(root / "dog", count)
    return root


def error(root: Path, **given: object) -> str:
    options = ImageFolderOptions(path=root, **given)
    with pytest.raises(DataError) as caught:
        fingerprint_folder(options)
    for other in (load_folder, survey_folder):
        with pytest.raises(DataError) as again:
            other(options)
        assert str(again.value) == str(caught.value)
    return str(caught.value)


def found(root: Path, **given: object) -> dict[str, dict[str, int]]:
    """Counts of each split by class, as loaded and as surveyed."""
    options = ImageFolderOptions(path=root, **given)
    raw = load_folder(options)
    counts = {
        name: dict(zip(raw.classes, np.bincount(images.labels, minlength=len(raw.classes)).tolist(), strict=True))
        for name, images in raw.splits.items()
    }
    survey = survey_folder(options)
    assert survey.counts == counts and survey.warnings == raw.warnings
    return counts


# ---- splits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        {"Training": "train", "Testing": "test"},
        {"TRAIN": "train", "TEST": "test"},
        {"Train": "train", "Val": "validation"},
        {"seg_train": "train", "seg_test": "test"},
        {"train": "train", "testing": "test"},
        {"train": "train", "dev": "validation", "test": "test"},
        {"train-images": "train", "valid-images": "validation", "test-images": "test"},
    ],
    ids=lambda names: "+".join(names),
)
def test_splits_under_other_names(names: dict[str, str], tmp_path: Path) -> None:
    for name in names:
        pets(tmp_path / name, 4)
    assert found(tmp_path) == {split: {"cat": 4, "dog": 4} for split in names.values()}
    assert set(found(tmp_path, splits=True)) == set(names.values())


def test_an_archive_unpacked_into_folders_of_its_own_name(tmp_path: Path) -> None:
    for name in ("seg_train", "seg_test"):
        pets(tmp_path / name / name)
    assert set(found(tmp_path)) == {"train", "test"}
    for inner in ("cat", "dog"):
        fill(tmp_path / "double" / "double" / inner)
    text = error(tmp_path / "double")
    assert "holds one folder, double/, and cat/ and dog/ lie in it" in text and 'double/double"' in text
    for inner in ("train", "test"):
        pets(tmp_path / "twice" / "twice" / inner)
    text = error(tmp_path / "twice")
    assert "test/ and train/ lie in it" in text and 'twice/twice"' in text
    assert set(found(tmp_path / "twice" / "twice")) == {"train", "test"}


@pytest.mark.parametrize("name", ["train", "test", "Val"])
def test_a_class_that_is_called_as_a_split_is(name: str, tmp_path: Path) -> None:
    for each in ("bus", "car", name):
        fill(tmp_path / each, 6)
    assert found(tmp_path) == {"train": dict.fromkeys(sorted(("bus", "car", name)), 6)}


def test_a_class_whose_name_holds_a_splits_word(tmp_path: Path) -> None:
    for each in ("train_station", "test_bench", "bus"):
        fill(tmp_path / each)
    assert set(found(tmp_path)["train"]) == {"train_station", "test_bench", "bus"}


def test_what_could_be_meant_either_way_is_asked(tmp_path: Path) -> None:
    fill(tmp_path / "bus")
    for each in ("steam", "diesel"):
        fill(tmp_path / "train" / each)
    text = error(tmp_path)
    assert "train/" in text and "bus/ with images beside" in text and "splits = false" in text
    assert found(tmp_path, splits=False) == {"train": {"bus": 5, "train": 10}}
    assert found(tmp_path, splits=True) == {"train": {"diesel": 5, "steam": 5}}
    assert (
        "bus/, with 5 images, lies beside the splits"
        in load_folder(ImageFolderOptions(path=tmp_path, splits=True)).warnings[0]
    )


def test_splits_inside_the_classes_are_refused_or_taken_together(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for split in ("train", "test"):
            fill(tmp_path / name / split, 3)
    text = error(tmp_path)
    assert "cat/ and dog/" in text and "splits of their own" in text and "splits = false" in text
    assert found(tmp_path, splits=False) == {"train": {"cat": 6, "dog": 6}}


def test_a_test_folder_without_classes_says_what_to_do(tmp_path: Path) -> None:
    pets(tmp_path / "train")
    fill(tmp_path / "test")
    text = error(tmp_path)
    assert "test holds no class folders: 5 images" in text and "drawn from train/" in text
    assert "splits = true" in error(pets(tmp_path / "train"), splits=True)


# ---- other files ---------------------------------------------------------------------------------------------------


def test_files_of_other_kinds_are_counted_and_named(tmp_path: Path) -> None:
    pets(tmp_path, 12)
    for index in range(30):
        (tmp_path / "cat" / f"IMG_{index}.HEIC").write_bytes(b"\0" * 9)
    for name in ("old.jpe", "bare", "Thumbs.db", ".hidden"):
        (tmp_path / "cat" / name).write_bytes(b"\0")
    fill(tmp_path / "loose", 2)
    (tmp_path / "7.png").write_bytes((tmp_path / "cat" / "1.png").read_bytes())
    options = ImageFolderOptions(path=tmp_path, image_size=8)
    raw = load_folder(options)
    assert raw.warnings[0].startswith("32 files were left out of cat/")
    assert raw.warnings[0].endswith("30 .heic, 1 .jpe, 1 without a suffix")
    assert "1 images of train lie in no class folder" in raw.warnings[1] and len(raw.warnings) == 2
    (tmp_path / ".out").mkdir()
    assert (
        raw.warnings[0]
        in prepare(raw, options.model_copy(update={"classes": ("cat", "dog")}), tmp_path / ".out", Silent()).warnings
    )


def test_a_class_with_other_files_alone_says_which(tmp_path: Path) -> None:
    pets(tmp_path)
    (tmp_path / "fox").mkdir()
    for index in range(3):
        (tmp_path / "fox" / f"{index}.HEIC").write_bytes(b"\0")
    text = error(tmp_path)
    assert "no images in fox/" in text and "which holds other files: 3 .heic" in text


# ---- links ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/nowhere/x.png", "99.png"], ids=["dangling", "to itself"])
def test_a_link_to_nothing_is_named_or_skipped(target: str, tmp_path: Path) -> None:
    root = pets(tmp_path / "pets", 20)
    (root / "cat" / "99.png").symlink_to(target)
    text = error(root)
    assert "cat/99.png is a link to" in text and 'on_error = "skip"' in text
    options = ImageFolderOptions(path=root, image_size=8, on_error="skip")
    values = prepare(load_folder(options), options, tmp_path, Silent())
    assert len(values.skipped) == 1 and "99.png" in values.skipped[0]
    assert sum(split.count for split in values.splits.values()) == 40
    assert fingerprint_folder(options)


@pytest.mark.parametrize("name", ["bird", "val"])
def test_a_folder_that_is_a_link_to_nothing_is_told(name: str, tmp_path: Path) -> None:
    pets(tmp_path)
    (tmp_path / name).symlink_to("/nowhere/folder")
    assert f"{name} is a link to /nowhere/folder, which is not there" in error(tmp_path)
    assert set(found(tmp_path, on_error="skip")["train"]) == {"cat", "dog"}
    assert "was left out" in survey_folder(ImageFolderOptions(path=tmp_path, on_error="skip")).warnings[0]


def test_linked_folders_are_followed_and_circles_are_told(tmp_path: Path) -> None:
    root = pets(tmp_path / "pets")
    more = fill(tmp_path / "elsewhere", 3)
    (root / "cat" / "batch2").symlink_to(more)
    assert found(root) == {"train": {"cat": 8, "dog": 5}}
    (more / "twice").symlink_to(fill(tmp_path / "far", 2))
    assert found(root) == {"train": {"cat": 10, "dog": 5}}
    (root / "cat" / "back").symlink_to(root)
    assert "cat/back is a link back to a folder that it lies in" in error(root)
    assert found(root, on_error="skip") == {"train": {"cat": 10, "dog": 5}}


# ---- names ---------------------------------------------------------------------------------------------------------


def test_accents_are_written_in_two_ways(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    for split, name in (("train", composed), ("test", decomposed)):
        fill(tmp_path / split / name)
        fill(tmp_path / split / "tea")
    assert found(tmp_path)["test"] == {composed: 5, "tea": 5}
    fill(tmp_path / "train" / decomposed)
    text = error(tmp_path)
    assert "holds two folders" in text and "caf\\xe9" in text and "cafe\\u0301" in text


def test_names_that_are_not_utf8_reach_the_report(tmp_path: Path) -> None:
    root = pets(tmp_path / "pets", 12)
    strange = Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9"))
    fill(strange, 12)
    (strange / os.fsdecode(b"\xff.png")).write_bytes(b"no image")
    (strange / os.fsdecode(b"\xff.heic")).write_bytes(b"no image")
    options = ImageFolderOptions(path=root, image_size=8, on_error="skip")
    raw: RawDataset = load_folder(options)
    assert raw.classes[0] == "caf\\udce9"
    values = prepare(raw, options, tmp_path, Silent())
    (tmp_path / "facts.json").write_text(to_text(values), encoding="utf-8")
    assert "\\udcff.png" in values.skipped[0] and len(values.skipped) == 1
    assert fingerprint_folder(options)
