"""Folders with boxes that TensorFlow Datasets prepared: forms of boxes, crowds, and what is wrong with them."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeopt.errors import DataError
from edgeopt_detection.options import TfdsBoxesOptions
from edgeopt_detection.plugin import edgeopt_datasets

pytest.importorskip("tensorflow_datasets")

from tfds_files import OBJECTS, example, write_folder

PLUGIN = next(each for each in edgeopt_datasets() if each.name == "tfds-boxes")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def png(shade: int) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (40, 20), (shade, 0, 0)).save(held, "PNG")
    return held.getvalue()


def record(shade: int, *objects: tuple[list[float], int, int]) -> bytes:
    """An image of 40 × 20 px: boxes, classes, and whether each is a crowd."""
    return example(
        {
            "image": png(shade),
            "objects/bbox": [number for box, *_ in objects for number in box],
            "objects/label": [label for _, label, _ in objects],
            "objects/is_crowd": [crowd for *_, crowd in objects],
        }
    )


def folder(path: Path, records: list[bytes], file_format: str = "tfrecord", **told: Any) -> Path:
    objects = json.loads(json.dumps(OBJECTS))
    objects["sequence"]["feature"]["featuresDict"]["features"]["bbox"]["boundingBox"] |= told
    return write_folder(path, {"train": [records[:2], records[2:]]}, file_format, label=objects, name="objects")


def message(path: Path, **given: Any) -> str:
    with pytest.raises(DataError) as caught:
        PLUGIN.find(TfdsBoxesOptions(path=path, **given)).load()
    return str(caught.value)


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_boxes_come_in_px_with_y_first_and_crowds_kept(file_format: str, tmp_path: Path) -> None:
    records = [
        record(10, ([0.1, 0.25, 0.6, 0.5], 1, 0), ([0.0, 0.0, 1.0, 1.0], 0, 1)),
        record(20),
        record(30, ([0.5, 0.5, 1.0, 1.0], 0, 0)),
    ]
    path = folder(tmp_path / "1.0.0", records, file_format)
    found = PLUGIN.find(TfdsBoxesOptions(path=path))
    for raw in (found.load(), pickle.loads(pickle.dumps(found)).load()):  # the second time from what was kept
        images = raw.splits["train"]
        assert raw.classes == ("cat", "dog") and len(images) == 3
        boxes = images.target(0)
        np.testing.assert_allclose(boxes.corners, [[10, 2, 20, 12], [0, 0, 40, 20]], atol=1e-4)
        assert boxes.classes.tolist() == [1, 0] and boxes.crowd.tolist() == [False, True]
        assert [len(images.target(index)) for index in range(3)] == [2, 0, 1]
        assert np.asarray(images[2])[0, 0, 0] == 30 and "record 0" in images.name_of(2)
        assert any("1 of 3 images have no boxes" in each for each in raw.warnings)
        assert np.bincount(images.file_of).tolist() == [2, 1]


def test_the_form_is_what_the_data_set_says_or_the_recipe(tmp_path: Path) -> None:
    records = [record(1, ([10.0, 2.0, 20.0, 12.0], 0, 0)) for _ in range(3)]
    path = folder(tmp_path / "1.0.0", records, bboxFormat="XYXY")
    boxes = PLUGIN.load(TfdsBoxesOptions(path=path)).splits["train"].target(0)
    assert boxes.corners.tolist() == [[10, 2, 20, 12]]
    boxes = PLUGIN.load(TfdsBoxesOptions(path=path, box_form="xywh")).splits["train"].target(0)
    assert boxes.corners.tolist() == [[10, 2, 30, 14]]
    silent = folder(tmp_path / "2.0.0", records)
    assert "box_form" in message(silent)  # no shares at all


def test_what_is_wrong_is_named_at_once_or_left_out(tmp_path: Path) -> None:
    good = [record(index, ([0.1, 0.1, 0.5, 0.5], 0, 0)) for index in range(6)]
    broken = example({"image": b"no image", "objects/bbox": [0.0, 0.0, 1.0, 1.0], "objects/label": [0]})
    short = example({"image": png(1), "objects/bbox": [0.5, 0.5], "objects/label": [0], "objects/is_crowd": [0]})
    bad = [record(7, ([0.1, 0.1, 0.5, 0.5], 5, 0)), record(8, ([0.5, 0.5, 0.5, 0.9], 0, 0)), broken, short]
    path = folder(tmp_path / "1.0.0", [*good, *bad])
    said = message(path)
    for part in ("object 0 is of class 5, none of 0 to 1", "has no area", "cannot be read", "2 numbers of boxes and 1"):
        assert part in said
    raw = PLUGIN.load(TfdsBoxesOptions(path=path, on_error="skip"))
    assert len(raw.splits["train"]) == 8 and len(raw.warnings) == 5
    said = message(path, label_feature="labl", image_feature="objects", split_names={"test": "tset"})
    for part in (
        "no feature 'labl' of an object in 'objects'",
        "'label'?",
        "is Sequence, and not Image",
        "no split 'tset'",
    ):
        assert part in said
    said = message(path, objects_feature="image")
    assert "feature 'image'" in said and "is Image, and not Sequence" in said
