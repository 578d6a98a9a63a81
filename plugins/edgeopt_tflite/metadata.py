"""What an app reads of a file without its card: TFLite metadata, and files packed behind the model.

Android's and MediaPipe's image classifiers take labels and normalization from here. The metadata is a flatbuffer of its
own, kept in the model under `TFLITE_METADATA`; the files are a zip archive that follows the model in the same file.
Source: https://github.com/tensorflow/tflite-support/blob/master/tensorflow_lite_support/metadata/metadata_schema.fbs
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
from flatbuffers import encode, number_types
from flatbuffers.table import Table

from edgeopt.files import ARCHIVE_ERRORS
from edgeopt.plugins import Card, Json, TensorInfo

METADATA_KEY = "TFLITE_METADATA"
LABELS_FILE = "labels.txt"
CARD_FILE = "edgeopt_card.json"

_IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"  # the first that knows everything that is written here
_DESCRIPTIONS, _TENSOR_AXIS_LABELS = 1, 2  # AssociatedFileType
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = 1, 2  # ContentProperties
_NORMALIZATION_OPTIONS = 1  # ProcessUnitOptions
_RGB, _GREYSCALE = 1, 2  # ColorSpaceType
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip archive's first date: the time of the export is no part of the file


@dataclass(frozen=True)
class PackedMetadata:
    """What a file says of itself; `mean` and `std` are of pixels 0..255, per channel."""

    card: dict[str, Json]
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def metadata_of(card: Card, given: TensorInfo, returned: Sequence[TensorInfo]) -> bytes:
    """The metadata flatbuffer of an image classifier; of another network, with its outputs by their names."""
    builder = flatbuffers.Builder(1024)
    mean, std = _normalization(card, given)
    normalization = _table(builder, [_floats(builder, mean), _floats(builder, std)])
    unit = _table(builder, [_Byte(_NORMALIZATION_OPTIONS), normalization])
    is_grey = len(mean) == 1
    image = _table(builder, [_Byte(_GREYSCALE if is_grey else _RGB)])
    content = _table(builder, [_Byte(_IMAGE_PROPERTIES), image])
    name, text = builder.CreateString(given.name), builder.CreateString(f"an image, {'grey' if is_grey else 'RGB'}")
    units = _vector(builder, [unit])
    given_table = _table(builder, [name, text, None, content, units])
    is_classifier = len(returned) == 1 and returned[0].shape[1:] == (len(card.classes),)
    returned_tables = [(_logits_table if is_classifier else _output_table)(builder, each) for each in returned]
    inputs, outputs = _vector(builder, [given_table]), _vector(builder, returned_tables)
    graphs = _vector(builder, [_table(builder, [None, None, inputs, outputs])])
    name = builder.CreateString(_model_name(card))
    files = _vector(builder, [_associated(builder, CARD_FILE, "how to use this file, as JSON", _DESCRIPTIONS)])
    version = builder.CreateString(_PARSER_VERSION)
    builder.Finish(_table(builder, [name, None, None, graphs, None, None, files, version]), _IDENTIFIER)
    return bytes(builder.Output())


def _logits_table(builder: flatbuffers.Builder, returned: TensorInfo) -> int:
    labels = _associated(builder, LABELS_FILE, "the classes, one a line", _TENSOR_AXIS_LABELS)
    features = _table(builder, [])
    content = _table(builder, [_Byte(_FEATURE_PROPERTIES), features])
    name, text = builder.CreateString(returned.name), builder.CreateString("a logit for each class")
    files = _vector(builder, [labels])
    return _table(builder, [name, text, None, content, None, None, files])


def _output_table(builder: flatbuffers.Builder, returned: TensorInfo) -> int:
    features = _table(builder, [])
    content = _table(builder, [_Byte(_FEATURE_PROPERTIES), features])
    name, text = builder.CreateString(returned.name), builder.CreateString(f"values, {returned.layout}")
    return _table(builder, [name, text, None, content])


def _model_name(card: Card) -> str:
    """What the model is called: by the recipe's model, or by the file that it was converted from."""
    model = card.recipe.get("model")
    return str(model["use"] if isinstance(model, dict) else card.recipe.get("source", "edgeopt"))


def packed(model: bytes, card: Card) -> bytes:
    """The model, followed by a zip archive of its labels and its card."""
    file = io.BytesIO(model)
    labels = "".join(" ".join(label.split()) + "\n" for label in card.classes)
    with zipfile.ZipFile(file, "a") as archive:
        for name, text in ((LABELS_FILE, labels), (CARD_FILE, card.to_json())):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3  # the same bytes from every system
            archive.writestr(entry, text.encode(), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def read_metadata(path: Path) -> PackedMetadata:
    """Reads back what `metadata_of` and `packed` put into a file.

    Raises `ValueError` when the file carries none of it.
    """
    from edgeopt_tflite.graph import Graph  # the model's own schema, which packing does not need

    try:
        with zipfile.ZipFile(path) as archive:
            card = json.loads(archive.read(CARD_FILE))
            labels = archive.read(LABELS_FILE).decode().splitlines()
    except ARCHIVE_ERRORS as error:
        raise ValueError(f"{path} carries no labels and no card") from error
    content = Graph(path.read_bytes()).metadata(METADATA_KEY)
    if content is None:
        raise ValueError(f"{path} carries no TFLite metadata")
    root = Table(content, encode.Get(number_types.UOffsetTFlags.packer_type, content, 0))
    (graph,) = _children(root, 3)
    (given,) = _children(graph, 2)
    (unit,) = _children(given, 4)
    options = _child(unit, 1)
    return PackedMetadata(card, tuple(labels), _numbers(options, 0), _numbers(options, 1))


def _normalization(card: Card, given: TensorInfo) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of pixels 0..255; of a file that takes pixels, those that change nothing."""
    mean, std = card.preprocessing["mean"], card.preprocessing["std"]
    if given.holds == "pixels":
        return [0.0] * len(mean), [1.0] * len(std)
    return [255.0 * value for value in mean], [255.0 * value for value in std]


# ---- writing tables ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Byte:
    """A field that stands in the table itself; all others are offsets to what was written before."""

    value: int


def _table(builder: flatbuffers.Builder, fields: Sequence[int | _Byte | None]) -> int:
    builder.StartObject(len(fields))
    for slot, field in enumerate(fields):
        if isinstance(field, _Byte):
            builder.PrependUint8Slot(slot, field.value, 0)
        elif field is not None:
            builder.PrependUOffsetTRelativeSlot(slot, field, 0)
    end: int = builder.EndObject()
    return end


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    return _elements(builder, builder.PrependUOffsetTRelative, offsets)


def _floats(builder: flatbuffers.Builder, values: Sequence[float]) -> int:
    return _elements(builder, builder.PrependFloat32, values)


def _elements(builder: flatbuffers.Builder, prepend: Callable[[Any], None], values: Sequence[Any]) -> int:
    builder.StartVector(4, len(values), 4)  # offsets and floats have four bytes
    for value in reversed(values):
        prepend(value)
    end: int = builder.EndVector()
    return end


def _associated(builder: flatbuffers.Builder, name: str, description: str, kind: int) -> int:
    return _table(builder, [builder.CreateString(name), builder.CreateString(description), _Byte(kind)])


# ---- reading tables ------------------------------------------------------------------------------------------------


def _offset(table: Table, slot: int) -> int:
    offset: int = table.Offset(4 + 2 * slot)
    if not offset:
        raise ValueError("the TFLite metadata is not that of an image classifier")
    return offset


def _child(table: Table, slot: int) -> Table:
    return Table(table.Bytes, table.Indirect(table.Pos + _offset(table, slot)))


def _children(table: Table, slot: int) -> list[Table]:
    start, count = table.Vector(_offset(table, slot)), table.VectorLen(_offset(table, slot))
    return [Table(table.Bytes, table.Indirect(start + 4 * index)) for index in range(count)]


def _numbers(table: Table, slot: int) -> tuple[float, ...]:
    start, count = table.Vector(_offset(table, slot)), table.VectorLen(_offset(table, slot))
    return tuple(table.Get(number_types.Float32Flags, start + 4 * index) for index in range(count))
