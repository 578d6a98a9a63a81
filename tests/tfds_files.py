"""Small folders as TensorFlow Datasets prepares them, written without TensorFlow."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PACKAGE = "tensorflow_datasets.core.features"


def png(index: int) -> bytes:
    held = io.BytesIO()
    pixels = np.random.default_rng(index).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def example(features: Mapping[str, bytes | int | Sequence[int] | Sequence[float]] | None = None, **more: Any) -> bytes:
    """A record, as `tf.train.Example` has it."""
    from tensorflow_datasets.proto import tf_example_pb2

    made = tf_example_pb2.Example()
    for name, value in {**(features or {}), **more}.items():
        held = made.features.feature[name]
        if isinstance(value, bytes):
            held.bytes_list.value.append(value)
        elif not isinstance(value, int) and any(isinstance(each, float) for each in value):
            held.float_list.value.extend(value)
        else:
            held.int64_list.value.extend([value] if isinstance(value, int) else value)
    return made.SerializeToString()


def masked(content: bytes) -> bytes:
    """TFRecord's checksum: CRC-32C, rotated and moved."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def write_records(file: Path, records: Sequence[bytes], file_format: str) -> None:
    if file_format == "array_record":
        from array_record.python.array_record_module import ArrayRecordWriter

        writer = ArrayRecordWriter(str(file), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
        return
    with file.open("wb") as stream:
        for record in records:
            length = struct.pack("<Q", len(record))
            stream.write(length + masked(length) + record + masked(record))


CLASS_LABEL = {"pythonClassName": f"{PACKAGE}.class_label_feature.ClassLabel", "classLabel": {"numClasses": "2"}}
SEQUENCE = {
    "pythonClassName": f"{PACKAGE}.sequence_feature.Sequence",
    "sequence": {"feature": CLASS_LABEL, "length": "-1"},
}


OBJECTS = {
    "pythonClassName": f"{PACKAGE}.sequence_feature.Sequence",
    "sequence": {
        "feature": {
            "pythonClassName": f"{PACKAGE}.features_dict.FeaturesDict",
            "featuresDict": {
                "features": {
                    "bbox": {
                        "pythonClassName": f"{PACKAGE}.bounding_boxes.BBoxFeature",
                        "boundingBox": {"dtype": "float32", "shape": {"dimensions": ["4"]}},
                    },
                    "is_crowd": {
                        "pythonClassName": f"{PACKAGE}.tensor_feature.Tensor",
                        "tensor": {"dtype": "bool", "encoding": "none", "shape": {}},
                    },
                    "label": CLASS_LABEL,
                }
            },
        },
        "length": "-1",
    },
}


def write_folder(
    folder: Path,
    splits: Mapping[str, Sequence[Sequence[bytes]]],
    file_format: str = "tfrecord",
    label: Mapping[str, object] = CLASS_LABEL,
    name: str = "label",
) -> Path:
    """A version of a data set of cats and dogs: for each split the records of each of its files."""
    folder.mkdir(parents=True)
    for split, files in splits.items():
        for number, records in enumerate(files):
            file = f"pets-{split}.{file_format}-{number:05}-of-{len(files):05}"
            write_records(folder / file, records, file_format)
    told = [
        {
            "name": split,
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            "numBytes": "1000",
            "shardLengths": [str(len(records)) for records in files],
        }
        for split, files in splits.items()
    ]
    supervised = {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}}
    info = {"fileFormat": file_format, "name": "pets", "splits": told, "supervisedKeys": supervised, "version": "1.0.0"}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    image = {
        "pythonClassName": f"{PACKAGE}.image_feature.Image",
        "image": {"dtype": "uint8", "encodingFormat": "png", "shape": {"dimensions": ["-1", "-1", "3"]}},
    }
    features = {"featuresDict": {"features": {"image": image, name: dict(label)}}}
    features["pythonClassName"] = f"{PACKAGE}.features_dict.FeaturesDict"
    (folder / "features.json").write_text(json.dumps(features))
    for file in ("label.labels.txt", "label-feature.labels.txt", "objects-label.labels.txt"):
        (folder / file).write_text("cat\ndog\n")
    return folder


def pets(folder: Path, file_format: str = "tfrecord", train: int = 80, test: int = 8) -> Path:
    """The images of `png`, cats and dogs in turn; train in two files."""
    records = [example(image=png(index), label=index % 2) for index in range(train + test)]
    half = train // 2
    return write_folder(
        folder, {"train": [records[:half], records[half:train]], "test": [records[train:]]}, file_format
    )
