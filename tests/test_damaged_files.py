"""What others made is read or refused, however it is damaged: by an error of edgeopt's, never by another one.

`python benchmarks/damage.py` does the same for longer.
"""

from __future__ import annotations

import io
import json
import math
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import damaged_files
import pytest
from conftest import TINY_RECIPE
from damaged_apart import Apart, keras_files, onnx_file, pt2_file
from damaged_files import Target
from hypothesis import settings

from edgeopt.cards.reading import CARD, card_of
from edgeopt.errors import DataError, UserError
from edgeopt.networks.checkpoints import read_checkpoint
from edgeopt.plugins import ReaderPlugin
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


def test_records_of_tensorflow(installed: Registry, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_datasets")
    from tfds_files import pets

    try_all(damaged_files.targets_of_records(installed, pets(tmp_path / "pets/1.0.0", train=4, test=4)))


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Callable[[str, str, bytes], Apart]]:
    made: list[Apart] = []

    def begin(kind: str, ending: str, whole: bytes) -> Apart:
        made.append(Apart(kind, tmp_path / f"damaged{ending}", whole))
        return made[-1]

    yield begin
    for each in made:
        each.end()


def with_member(whole: bytes, ending: str, content: bytes) -> bytes:
    """An archive with other content in the members whose names end so."""
    held = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive, zipfile.ZipFile(held, "w") as other:
        for name in archive.namelist():
            other.writestr(name, content if name.endswith(ending) else archive.read(name))
    return held.getvalue()


def refused(read: Apart, content: bytes, said: str) -> None:
    """Each damage is refused by one message, from a process that lives on."""
    with pytest.raises(UserError, match=said):
        read(content)
    assert read.crashes == []


@pytest.mark.timeout(900)
def test_onnx_files_whose_numbers_no_images_have(apart: Callable[[str, str, bytes], Apart]) -> None:
    pytest.importorskip("onnxruntime")
    import onnx

    read = apart("onnx", ".onnx", onnx_file())
    refused(read, onnx_file()[:200], "damaged|cannot be read")
    refused(read, onnx_file(height=1 << 20, width=1 << 20), "says that it takes images of 1048576 × 1048576 px")
    refused(read, onnx_file(batch=1 << 30), "takes 1073741824 images at once")
    model = onnx.load_from_string(onnx_file())
    model.graph.input[0].type.tensor_type.elem_type = 200
    refused(read, model.SerializeToString(), "is type 200")
    model = onnx.load_from_string(onnx_file())
    model.graph.node.append(onnx.helper.make_node("SequenceConstruct", ["logits"], ["several"]))
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_sequence_value_info("several", onnx.TensorProto.FLOAT, None))
    refused(read, model.SerializeToString(), "one of its outputs is a list, not numbers")


@pytest.mark.timeout(900)
def test_programs_whose_tables_are_of_other_kinds(apart: Callable[[str, str, bytes], Apart]) -> None:
    whole = pt2_file()
    read = apart("pt2", ".pt2", whole)
    for config in (b"[]", b'{"config": [1]}', b'{"config": {"a": 1}}', b"[" * 5000):
        refused(read, with_member(whole, "_config.json", config), "is damaged, or no file of torch.export")
    refused(read, with_member(whole, "model.json", b"{}"), "cannot be read as a program")


@pytest.mark.timeout(900)
def test_keras_files_whose_description_is_of_another_kind(
    apart: Callable[[str, str, bytes], Apart], tmp_path: Path
) -> None:
    pytest.importorskip("tensorflow")
    archive, hdf5, flat = keras_files(tmp_path / "whole")
    read = apart("keras", ".keras", archive)
    config = b'{"class_name": "Sequential", "module": 5, "config": {}}'
    refused(read, with_member(archive, "config.json", config), "is defined in 5")
    deep = b'{"config":' * 900 + b"1" + b"}" * 900
    refused(read, with_member(archive, "config.json", deep), "cannot be read as a Keras model")
    refused(read, bomb(), "it says that 104,857,600 bytes are packed in it")
    with zipfile.ZipFile(io.BytesIO(archive)) as whole:
        strides = whole.read("config.json").replace(b'"strides": [1, 1]', b'"strides": [1e+308, 1]')
    refused(read, with_member(archive, "config.json", strides), "cannot be run on an image: Stride must be > 0")
    read = apart("keras", ".h5", hdf5)
    refused(read, hdf5[: len(hdf5) // 2], "cannot be read as a Keras model")
    read = apart("tflite", ".tflite", flat)
    refused(read, flat[: len(flat) // 2], "damaged")


def bomb() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("config.json", "metadata.json", "a/data.pkl", "a/x_config.json", CARD):
            archive.writestr(name, bytes(20 << 20))
    return held.getvalue()


def test_an_archive_that_unpacks_to_far_more_than_it_is(installed: Registry, tmp_path: Path) -> None:
    """Nothing of it is unpacked."""
    pt2 = installed.get(ReaderPlugin, "pt2")
    readers: dict[str, Callable[[Path], object]] = {
        ".zip": card_of,
        ".pt": partial(read_checkpoint, names=()),
        ".pt2": lambda path: pt2.read(path, pt2.options()),
    }
    for ending, read in readers.items():
        file = tmp_path / f"bomb{ending}"
        file.write_bytes(bomb())
        tracemalloc.start()
        with pytest.raises(UserError):
            read(file)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
        tracemalloc.stop()


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
