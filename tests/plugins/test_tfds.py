"""Folders that TensorFlow Datasets prepared, in both of its formats: counts, splits, and what is wrong with them."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeopt.data.cache import load_data
from edgeopt.data.prepare import prepare, prepare_found
from edgeopt.errors import DataChangedError, DataError
from edgeopt.progress import Silent
from edgeopt_images.options import TfdsOptions
from edgeopt_images.plugin import edgeopt_datasets

pytest.importorskip("tensorflow_datasets")

from tfds_files import SEQUENCE, example, pets, png, write_folder

PLUGIN = next(each for each in edgeopt_datasets() if each.name == "tfds")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def pixels(encoded: bytes) -> np.ndarray:
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(encoded)))


def message(folder: Path, **given: object) -> str:
    with pytest.raises(DataError) as caught:
        PLUGIN.find(TfdsOptions(path=folder, **given)).load()
    return str(caught.value)


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_a_folder_has_counts_splits_and_a_fingerprint_as_other_data_sets(file_format: str, tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets" / "1.0.0", file_format)
    options = TfdsOptions(path=folder, image_size=8)
    found = PLUGIN.find(options)
    for raw in (found.load(), pickle.loads(pickle.dumps(found)).load()):  # the second time from the kept labels
        assert raw.classes == ("cat", "dog")
        assert {split: len(images) for split, images in raw.splits.items()} == {"train": 80, "test": 8}
        assert raw.splits["train"].labels.tolist() == [0, 1] * 40
        for images in (raw.splits["train"], pickle.loads(pickle.dumps(raw.splits["train"]))):
            assert np.array_equal(np.asarray(images[57]), pixels(png(57)))
            assert images.name_of(57).endswith("00001-of-00002: record 17")
            assert np.bincount(images.file_of).tolist() == [40, 40]
    (tmp_path / "out").mkdir()
    values = prepare(raw, options, tmp_path / "out", Silent())
    assert values.splits["test"].per_class == {"cat": 4, "dog": 4}
    first = found.fingerprint()
    assert PLUGIN.find(options).fingerprint() == first
    os.utime(next(folder.glob("pets-test*")), ns=(1, 1))
    assert PLUGIN.find(options).fingerprint() != first
    with pytest.raises(DataChangedError):
        found.load()


def test_images_larger_than_the_cache_are_read_from_front_to_back(tmp_path: Path) -> None:
    options = TfdsOptions(path=pets(tmp_path / "1.0.0"), image_size=8)
    found = PLUGIN.find(options)
    (tmp_path / "out").mkdir()
    prepare_found(found, found.load, options, tmp_path / "out", Silent(), cache_bytes=0)
    train = load_data(tmp_path / "out", options, found.load).training.train
    assert train.pixels(range(len(train))).shape == (len(train), 8, 8, 3)


def test_no_tensorflow_and_no_torch_come_in(tmp_path: Path) -> None:
    folder = pets(tmp_path / "1.0.0", train=8, test=4)
    program = f"""
import sys
from pathlib import Path
from edgeopt_images.options import TfdsOptions
from edgeopt_images.tfds.found import find_tfds
found = find_tfds(TfdsOptions(path=Path({str(folder)!r})))
assert not {{"numpy", "tensorflow_datasets"}} & set(sys.modules)
found.load().splits["train"][0]
assert not {{"tensorflow", "torch", "jax"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_any_number_of_labels(tmp_path: Path) -> None:
    records = [example(image=png(0), label=[0, 1]), example(image=png(1), label=[]), example(image=png(2), label=[1])]
    folder = write_folder(tmp_path / "1.0.0", {"train": [records]}, label=SEQUENCE)
    options = TfdsOptions(path=folder, several_labels=True)
    assert PLUGIN.tasks_of(options) == ("multi-label",)
    raw = PLUGIN.load(options)
    assert (raw.classes, [raw.splits["train"].target(index) for index in range(3)]) == (
        ("cat", "dog"),
        [(1, 1), (0, 0), (0, 1)],
    )
    assert "set several_labels = true" in message(folder)


def test_what_does_not_fit_is_told_before_a_record_is_read(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets" / "1.0.0")
    assert f"did you mean {folder}" in message(tmp_path / "pets")
    assert "is no folder" in message(tmp_path / "none")
    told = message(folder, image_feature="imag", label_feature="image", split_names={"test": "tset"})
    for part in ("has no split 'tset'", "did you mean 'test'", "no feature 'imag'", "did you mean 'image'"):
        assert part in told
    assert "feature 'image'" in told and "is Image, and not ClassLabel" in told
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "parquet"}))
    assert "stored as parquet" in message(folder)
    (folder / "dataset_info.json").write_text("{")
    assert "dataset_info.json is damaged" in message(folder)


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_damaged_files_are_named(file_format: str, tmp_path: Path) -> None:
    folder = pets(tmp_path / "1.0.0", file_format, train=8, test=4)
    file = next(folder.glob("pets-test*"))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert file.name in message(folder)
    file.write_bytes(b"no records at all" * 9)
    assert file.name in message(folder)
    file.unlink()
    assert file.name in message(folder)


def test_records_that_cannot_be_used_are_named_together_or_left_out(tmp_path: Path) -> None:
    good = [example(image=png(index), label=index % 2) for index in range(8)]
    bad = [b"\xff\xff", example(image=png(9)), example(image=png(9), label=7)]
    folder = write_folder(tmp_path / "1.0.0", {"train": [[*good, *bad[:2]]]})
    told = message(folder)
    assert "record 8 cannot be read" in told and "record 9 has 0 labels and not one" in told
    raw = PLUGIN.load(TfdsOptions(path=folder, on_error="skip"))
    assert len(raw.splits["train"]) == 8 and "2 records were left out" in raw.warnings[0]
    strange = write_folder(tmp_path / "2.0.0", {"train": [[*good, bad[2]]]})
    assert "label 7 is none of 0 to 1" in message(strange)
    broken = write_folder(tmp_path / "3.0.0", {"train": [[example(image=b"none", label=0), *good]]})
    with pytest.raises(DataError, match="record 0 cannot be read: not an image"):
        PLUGIN.load(TfdsOptions(path=broken)).splits["train"][0]
