"""What others made is read or refused, however it is damaged: by an error of edgeopt's, never by another one.

`python benchmarks/damage.py` does the same for longer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

import damaged_files
import pytest
from conftest import TINY_RECIPE
from damaged_files import Target
from hypothesis import settings

from edgeopt.errors import DataError
from edgeopt.plugins.registry import Registry, load_registry


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def installed() -> Registry:
    return load_registry()


def try_all(targets: Iterable[Target]) -> None:
    for target in targets:
        target.exercise(settings(max_examples=60))


def test_recipes_cards_and_what_runs_left(finished: Path, tmp_path: Path) -> None:
    try_all(damaged_files.targets_of_runs(finished, TINY_RECIPE.encode(), tmp_path))


def test_images_and_what_names_them(installed: Registry, tmp_path: Path) -> None:
    try_all(damaged_files.targets_of_data(installed, tmp_path))


def test_what_a_folder_of_tfds_says_of_itself(installed: Registry, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_datasets")
    from tfds_files import pets

    try_all(damaged_files.targets_of_tfds(installed, pets(tmp_path / "pets/1.0.0", train=8, test=4)))


def test_checkpoints_and_bundles(tmp_path: Path) -> None:
    try_all(damaged_files.targets_of_weights(tmp_path))


@pytest.mark.parametrize("label", ["nan", "inf", "-inf", "0.5", "2"])
def test_a_class_of_yolo_that_is_no_place_among_the_names(label: str, installed: Registry, tmp_path: Path) -> None:
    target = next(each for each in damaged_files.targets_of_data(installed, tmp_path) if each.name.startswith("yolo"))
    with pytest.raises(DataError, match=r"0\.txt:1: class "):
        target.read(f"{label} 0.5 0.5 0.2 0.2\n".encode())


@pytest.mark.parametrize("given_id", [{"a": 1}, [1], True, math.nan, 10**400])
def test_an_id_of_coco_that_is_no_number_and_no_text(given_id: object, installed: Registry, tmp_path: Path) -> None:
    targets = damaged_files.targets_of_data(installed, tmp_path)
    target = next(each for each in targets if each.name == "coco")
    image = {"id": given_id, "file_name": "0.png", "width": 14, "height": 10}
    other = {**image, "id": 7}
    told = {"images": [image, other], "categories": [{"id": 1, "name": "a"}], "annotations": []}
    with pytest.raises(DataError, match="has no id"):
        target.read(json.dumps(told).encode())


def test_a_list_of_images_that_is_no_text(installed: Registry, tmp_path: Path) -> None:
    targets = damaged_files.targets_of_data(installed, tmp_path)
    target = next(each for each in targets if each.name == "data.yaml")
    (tmp_path / "yolo/list.txt").write_bytes(b"images/\xff.png\n")
    with pytest.raises(DataError, match="is not UTF-8"):
        target.read(b"path: .\ntrain: list.txt\nval: list.txt\nnames: [a]\n")


def test_names_that_grow_when_they_are_written_are_refused_at_once(installed: Registry, tmp_path: Path) -> None:
    targets = damaged_files.targets_of_data(installed, tmp_path)
    target = next(each for each in targets if each.name == "data.yaml")
    lines = ["a0: &a0 [x, x]", *(f"a{index}: &a{index} [*a{index - 1}, *a{index - 1}]" for index in range(1, 60))]
    told = "\n".join((*lines, "names: [*a59]", "train: images/train", "val: images/train")).encode()
    with pytest.raises(DataError, match="no text, but a list"):
        target.read(told)


def test_a_folder_is_no_image_of_coco(installed: Registry, tmp_path: Path) -> None:
    target = next(each for each in damaged_files.targets_of_data(installed, tmp_path) if each.name == "coco")
    (tmp_path / "coco/images/folder.d").mkdir()
    image = {"id": 1, "file_name": "folder.d", "width": 14, "height": 10}
    told = {"images": [image], "categories": [{"id": 1, "name": "a"}], "annotations": []}
    with pytest.raises(DataError, match=r"folder\.d\) is not in"):
        target.read(json.dumps(told).encode())
