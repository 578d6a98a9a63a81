"""Files as edgeopt reads them from others, whole, and strategies that damage them: for a short test and a campaign."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import damaged_apart
import numpy as np
from damaged_apart import Apart
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from shard_files import shard

from edgeopt.cards.reading import card_of
from edgeopt.data.images import open_image
from edgeopt.errors import EdgeoptError
from edgeopt.pipeline.record import read_record
from edgeopt.plugins import DatasetOptions, DatasetPlugin
from edgeopt.plugins.registry import Registry
from edgeopt.recipe.read import read_recipe
from edgeopt.report.kept_answers import KeptAnswers
from edgeopt.report.reading import read_report

Json = Any
#: What stands in the place of a value: of another type, out of range, or a text that leads elsewhere.
STRANGE: tuple[Json, ...] = (
    None, True, -1, 0, 1.5, 1e308, float("nan"), 2**63, -(2**70), 10**400, "", "x" * 300, "\0", "../../other", "\ud800", [], {},
    [[]], {"a": {}},
)  # fmt: skip


#: Lists in lists, deeper than parsers that call themselves go; and what stands for it until a value is text.
DEEP, _IN_PLACE_OF_DEEP = b"[" * 5000 + b"]" * 5000, "deep"


@dataclass(frozen=True)
class Target:
    """A reader: bytes that it takes or refuses, made by `content`, and `read`, which writes them to a file first.

    `refuses` are the errors besides edgeopt's own by which it says so.
    """

    name: str
    content: st.SearchStrategy[bytes]
    read: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...] = ()

    def try_one(self, content: bytes) -> None:
        """Raises whatever the reader raises that is no refusal."""
        try:
            self.read(content)
        except (EdgeoptError, *self.refuses):
            return

    def exercise(self, how: settings) -> None:
        """Tries as many as the settings say; of what fails, raises the smallest, with the reader's name."""

        @settings(how, suppress_health_check=list(HealthCheck))
        @given(self.content)
        def read(content: bytes) -> None:
            self.try_one(content)

        try:
            read()
        except Exception as error:
            error.add_note(f"reader: {self.name}")
            raise


@st.composite
def damaged(draw: st.DrawFn, *whole: bytes) -> bytes:
    """One of some files with bytes changed, cut out, put in, copied elsewhere, or with its end cut off."""
    content = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        length = draw(st.sampled_from((1, 2, 8, 64, 1000)))
        match draw(st.sampled_from(("flip", "set", "cut", "put", "copy", "end"))):
            case "flip" if content:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "set":
                content[at : at + 1] = bytes([draw(st.sampled_from(b"\0\xff\x7f\x80\n\"<{'[0-"))])
            case "cut":
                del content[at : at + length]
            case "put":
                content[at:at] = draw(st.binary(max_size=30) | st.just(DEEP))
            case "copy":
                start = draw(st.integers(0, max(0, len(content) - 1)))
                content[at : at + length] = content[start : start + length]
            case "end":
                del content[at:]
    return bytes(content)


@st.composite
def changed(draw: st.DrawFn, whole: Json) -> bytes:
    """A file of JSON in which some values are missing, of other types, doubled, or under other names."""
    value = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(1, 3))):
        places = [place for place in _places(value) if place]
        if not places:
            break
        *path, last = draw(st.sampled_from(places))
        holder = value
        for step in path:
            holder = holder[step]
        match draw(st.sampled_from(("strange", "strange", "text", "missing", "renamed", "doubled"))):
            case "missing":
                del holder[last]
            case "renamed" if isinstance(holder, dict):
                holder[draw(st.sampled_from(("id", "name", "", f"{last}2")))] = holder.pop(last)
            case "doubled" if isinstance(holder, list):
                holder.append(json.loads(json.dumps(holder[last])))
            case "text" if isinstance(holder[last], int | float):
                holder[last] = str(holder[last])
            case _:
                holder[last] = json.loads(json.dumps(draw(st.sampled_from((*STRANGE, _IN_PLACE_OF_DEEP)))))
    return json.dumps(value).encode("utf-8", "surrogatepass").replace(b'"deep"', DEEP)


@st.composite
def changed_message(draw: st.DrawFn, whole: bytes, kind: type[Any]) -> bytes:
    """A message of protocol buffers in which some fields are missing, strange, or stand twice."""
    message = kind.FromString(whole)
    for _ in range(draw(st.integers(1, 3))):
        holder, field, index = draw(st.sampled_from(list(_fields(message))))
        value = getattr(holder, field.name) if index is None else getattr(holder, field.name)[index]
        match draw(st.sampled_from(("strange", "strange", "missing", "doubled"))):
            case "missing" if index is None:
                holder.ClearField(field.name)
            case "missing":
                del getattr(holder, field.name)[index]
            case "doubled" if index is not None:
                getattr(holder, field.name).append(value)
            case _ if not hasattr(value, "ListFields"):
                strange = [
                    each for each in (*STRANGE, b"", b"\xff" * 9, 2**31, 2**40, -7, 200) if type(each) is type(value)
                ]
                with contextlib.suppress(ValueError):  # a number that a field of its size does not take
                    strange_one = draw(st.sampled_from(strange or [value]))
                    if index is None:
                        setattr(holder, field.name, strange_one)
                    else:
                        getattr(holder, field.name)[index] = strange_one
    content: bytes = message.SerializeToString()
    return content


def _fields(message: Any) -> Iterator[tuple[Any, Any, int | None]]:
    """Each field that is set in a message and in those within it, by its holder; of lists the first eight."""
    for field, value in message.ListFields():
        several = not isinstance(value, str | bytes | int | float) and not hasattr(value, "ListFields")
        for index, each in enumerate(value[:8]) if several else ((None, value),):
            yield message, field, index
            if hasattr(each, "ListFields"):
                yield from _fields(each)


@st.composite
def repacked(draw: st.DrawFn, whole: bytes, ending: str) -> bytes:
    """An archive in which a member of JSON, whose name ends so, has changed."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw(st.sampled_from([name for name in members if name.endswith(ending)]))
    members[name] = draw(changed(json.loads(members[name])))
    return _zipped(members, zipfile.ZIP_STORED)


def _places(value: Json, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value[:8]) if isinstance(value, list) else ()
    for key, each in inside:
        yield from _places(each, (*path, key))


def image_files() -> tuple[bytes, ...]:
    """Small images of each kind of file, one turned by EXIF, one of 16 bits, one that one can see through."""
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (10, 14, 3)).astype(np.uint8))
    turned = Image.Exif()
    turned[0x112] = 6
    deep = Image.fromarray(random.integers(0, 65536, (10, 14)).astype(np.uint16))
    kinds = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
    made: list[tuple[Image.Image, str, dict[str, Any]]] = [(image, kind, {}) for kind in kinds]
    made += [(image, "JPEG", {"exif": turned}), (deep, "PNG", {}), (image.convert("RGBA"), "PNG", {})]
    return tuple(_saved(each, kind, **options) for each, kind, options in made)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    held = io.BytesIO()
    image.save(held, kind, **options)
    return held.getvalue()


def targets_of_runs(run: Path, recipe: bytes, folder: Path) -> Iterator[Target]:
    """Readers of recipes, cards, and of what a finished run left in its folder `run`."""

    def at(name: str, read: Callable[[Path], object], content: bytes) -> object:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return read(file)

    def folder_of(read: Callable[[Path], object], file: Path) -> object:
        return read(file.parent)

    card = next(run.rglob("card.json")).read_bytes()
    yield Target("recipe", damaged(recipe), partial(at, "recipe.toml", read_recipe))
    yield Target("card", changed(json.loads(card)), partial(at, "card.json", card_of))
    archives = tuple(
        _zipped({"a.txt": b"a", "card.json": card}, way) for way in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)
    )
    yield Target("card in an archive", damaged(*archives), partial(at, "model.zip", card_of))
    answers = (run / "answers.npz").read_bytes()
    yield Target("answers", damaged(answers), partial(at, "answers.npz", KeptAnswers.read))
    for name, read in (("run.json", read_record), ("report.json", read_report)):
        whole = json.loads((run / name).read_text())
        yield Target(name, changed(whole), partial(at, f"run/{name}", partial(folder_of, read)))


def _zipped(members: dict[str, bytes], way: int) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", way) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return held.getvalue()


def targets_of_data(registry: Registry, folder: Path) -> Iterator[Target]:
    """Readers of images, and of files that name images, labels and boxes."""
    image = image_files()[1]
    for index in range(3):
        for place in (f"{index}.png", f"coco/images/{index}.png", f"yolo/images/train/{index}.png"):
            _write(folder / place, image)
    yield Target("image", damaged(*image_files()), partial(open_image, name="image"))

    def reads(use: str, file: str, **options: Any) -> Callable[[bytes], object]:
        plugin = registry.get(DatasetPlugin, use)
        made: DatasetOptions = plugin.options.model_validate({**options, "image_size": 8})

        def read(content: bytes) -> object:
            _write(folder / file, content)
            if plugin.find is None:
                return plugin.load(made)
            found = plugin.find(made)
            found.fingerprint()
            found.survey()
            return [split[0] for split in found.load().splits.values() if len(split)]

        return read

    table = b'image,label\n0.png,a\n1.png,"b"\n2.png,a\n'
    yield Target("csv", damaged(table, table.replace(b",", b";")), reads("csv", "t.csv", path=folder / "t.csv"))
    lines = b'{"image": "0.png", "label": "a"}\n{"image": "1.png", "label": 1}\n'
    yield Target("jsonl", damaged(lines), reads("jsonl", "t.jsonl", path=folder / "t.jsonl"))
    tar = shard({f"{index}.{end}": held for index in range(4) for end, held in (("cls", b"1"), ("png", image))})
    yield Target("webdataset", damaged(tar), reads("webdataset", "t.tar", train=str(folder / "t.tar")))
    boxes = [{"id": index, "image_id": index % 3, "category_id": 1, "bbox": [1, 2, 5, 6]} for index in range(5)]
    coco = {
        "images": [{"id": index, "file_name": f"{index}.png", "width": 14, "height": 10} for index in range(3)],
        "categories": [{"id": 1, "name": "a"}, {"id": 5, "name": "b"}],
        "annotations": [{**box, "iscrowd": 0, "segmentation": [[1, 2, 3, 4]]} for box in boxes],
    }
    train = {"annotations": folder / "coco/boxes.json", "images": folder / "coco/images"}
    yield Target("coco", changed(coco), reads("coco", "coco/boxes.json", train=train))
    told = b"path: .\ntrain: images/train\nval: images/train\nnames: [a, b]\n"
    numbered = told.replace(b"[a, b]", b"\n  0: a\n  1: b\nnc: 2")
    _write(folder / "yolo/labels/train/0.txt", b"0 0.5 0.5 0.2 0.2\n")
    yield Target("data.yaml", damaged(told, numbered), reads("yolo", "yolo/data.yaml", path=folder / "yolo"))
    _write(folder / "yolo2/data.yaml", told)
    _write(folder / "yolo2/images/train/0.png", image)
    rows = b"0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.1 0.1\n0 0.1 0.1 0.9 0.1 0.5 0.9\n"
    labels = reads("yolo", "yolo2/labels/train/0.txt", path=folder / "yolo2")
    yield Target("yolo's text files", damaged(rows), labels)
    voc = (
        b"<annotation><filename>0.png</filename><size><width>14</width><height>10</height></size><object><name>a</name>"
        b"<difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object>"
        b"</annotation>"
    )
    _write(folder / "voc/JPEGImages/0.png", image)
    _write(folder / "voc/ImageSets/Main/train.txt", b"0\n")
    yield Target("pascal-voc", damaged(voc), reads("pascal-voc", "voc/Annotations/0.xml", path=folder / "voc"))


def targets_of_tfds(registry: Registry, pets: Path) -> Iterator[Target]:
    """Readers of what a folder of TensorFlow Datasets says of itself; `pets` is one."""
    plugin = registry.get(DatasetPlugin, "tfds")
    assert plugin.find is not None
    options = plugin.options.model_validate({"path": pets, "image_size": 8})
    for name in ("dataset_info.json", "features.json"):
        whole = (pets / name).read_bytes()

        def read(content: bytes, file: Path = pets / name, whole: bytes = whole) -> object:
            file.write_bytes(content)
            try:
                return plugin.find(options)  # type: ignore[misc]  # see above
            finally:
                file.write_bytes(whole)

        yield Target(name, changed(json.loads(whole)), read)


def targets_of_weights(folder: Path) -> Iterator[Target]:
    """Readers of checkpoints and of a bundle for TensorRT."""
    import torch
    from safetensors.torch import save

    from edgeopt.networks.checkpoints import read_checkpoint
    from edgeopt_tensorrt.bundle import read_bundle

    state = {"conv.weight": torch.ones(4, 3, 3, 3), "conv.bias": torch.zeros(4)}
    pickles = []
    for way in (True, False):
        held = io.BytesIO()
        torch.save(state, held, _use_new_zipfile_serialization=way)
        pickles.append(held.getvalue())

    def at(name: str, read: Callable[[Path], object], content: bytes) -> object:
        _write(folder / name, content)
        return read(folder / name)

    checkpoint = partial(read_checkpoint, names=state.keys())
    yield Target("checkpoint", damaged(*pickles), partial(at, "c.pt", checkpoint))
    yield Target("safetensors", damaged(save(state)), partial(at, "c.safetensors", checkpoint))
    bundle = _zipped({"build.py": b"print(1)" * 20, "model.onnx": bytes(300)}, zipfile.ZIP_DEFLATED)
    yield Target("TensorRT bundle", damaged(bundle), partial(at, "b.zip", read_bundle), refuses=(ValueError,))


def targets_of_models(folder: Path) -> Iterator[Target]:
    """Readers of models by native code, each in a process of its own: protocol buffers, HDF5, FlatBuffers, archives."""
    import onnx

    onnx_bytes = damaged_apart.onnx_file()
    read = Apart("onnx", folder / "m.onnx", onnx_bytes)
    yield Target("onnx", damaged(onnx_bytes) | changed_message(onnx_bytes, onnx.ModelProto), read)
    program = damaged_apart.pt2_file()
    yield Target("pt2", damaged(program) | repacked(program, ".json"), Apart("pt2", folder / "m.pt2", program))
    archive, hdf5, flat = damaged_apart.keras_files(folder / "whole")
    read = Apart("keras", folder / "m.keras", archive)
    yield Target("keras", damaged(archive) | repacked(archive, "config.json"), read)
    yield Target("h5", damaged(hdf5), Apart("keras", folder / "m.h5", hdf5))
    yield Target("tflite", damaged(flat), Apart("tflite", folder / "m.tflite", flat))


def targets_of_records(registry: Registry, pets: Path) -> Iterator[Target]:
    """The reader of TFRecord files, in a folder of cats and dogs as TFDS writes it; all its images are read."""
    plugin = registry.get(DatasetPlugin, "tfds")
    options: DatasetOptions = plugin.options.model_validate({"path": pets, "image_size": 8})
    file = next(pets.glob("*-test.tfrecord-*"))
    whole = file.read_bytes()

    def read(content: bytes) -> object:
        file.write_bytes(content)
        try:
            found = plugin.find(options)  # type: ignore[misc]  # this one finds
            found.survey()
            return [split[index] for split in found.load().splits.values() for index in range(len(split))]
        finally:
            file.write_bytes(whole)

    yield Target("TFRecord", damaged(whole), read)


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
