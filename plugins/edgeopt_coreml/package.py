"""A `.mlpackage`, which is a folder, as one file: a zip of it, always of the same bytes.

```
Manifest.json                                    what each item is, and which is the model
Data/com.apple.CoreML/model.mlmodel              the network, its input and outputs, and the card among its metadata
Data/com.apple.CoreML/weights/weight.bin         its constants
Data/edgeopt/card.json                           the card for whoever has no Core ML
```
"""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from edgeopt.export.predictor import layout_of
from edgeopt.files import ARCHIVE_ERRORS, require_no_bomb, write_aside
from edgeopt.plugins import TensorInfo
from edgeopt_coreml.options import SYSTEMS
from edgeopt_coreml.tools import coremltools

CARD_KEY = "edgeopt_card"
"""Name of the card's JSON text in the model's metadata: `modelDescription.metadata[.creatorDefinedKey]` in Swift."""
SPEC = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
CARD = "Data/edgeopt/card.json"
_ITEMS = (  # the model first
    ("com.apple.CoreML", "model.mlmodel", "CoreML Model Specification"),
    ("com.apple.CoreML", "weights", "CoreML Model Weights"),
    ("edgeopt", "card.json", "How to feed the model, and what its answers mean"),
)
_READABLE = 0o100644 << 16
_CHANNELS = {"GRAYSCALE": 1, "RGB": 3}


def write_package(path: Path, spec: Any, weights: bytes, card_json: str) -> None:
    """Writes the package; `spec` is coremltools' message of the model."""
    model, card = spec.SerializeToString(deterministic=True), card_json.encode()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {"Manifest.json": _manifest(), SPEC: model, WEIGHTS: weights, CARD: card}.items():
            entry = zipfile.ZipInfo(name)  # without a time
            entry.create_system, entry.external_attr = 3, _READABLE  # Unix, whatever system writes it
            archive.writestr(entry, data)
    write_aside(path, content.getvalue())


def unpack(path: Path, folder: Path) -> Any:
    """Puts the package into a folder, and returns its message of the model.

    Raises `ValueError` where the file is damaged or is no package of a network.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            require_no_bomb(archive, path)
            archive.extractall(folder)
        spec = coremltools.proto.Model_pb2.Model.FromString((folder / SPEC).read_bytes())
    except (OSError, *ARCHIVE_ERRORS, DecodeError) as error:
        raise ValueError(f"{path} is not a .mlpackage of edgeopt: {error}") from error
    if spec.specificationVersion not in SYSTEMS or spec.WhichOneof("Type") != "mlProgram":
        raise ValueError(f"{path} is of another version or kind than edgeopt writes")
    return spec


def tensors_of(spec: Any) -> tuple[TensorInfo, tuple[TensorInfo, ...]]:
    """What a model takes, floats or an image, and what it gives, as its message says.

    Raises `ValueError` where it has several inputs.
    """
    if len(spec.description.input) != 1:
        raise ValueError(f"the model has {len(spec.description.input)} inputs, not one")
    (given,) = spec.description.input
    returned = tuple(map(_array, spec.description.output))
    if given.type.WhichOneof("Type") != "imageType":
        return _array(given), returned
    image = given.type.imageType
    channels = _CHANNELS[type(image).ColorSpace.Name(image.colorSpace)]
    shape = (1, int(image.height), int(image.width), channels)
    return TensorInfo(given.name, "uint8", shape, "NHWC", holds="pixels"), returned


def _array(feature: Any) -> TensorInfo:
    array = feature.type.multiArrayType
    dtype, shape = type(array).ArrayDataType.Name(array.dataType).lower(), tuple(map(int, array.shape))
    return TensorInfo(feature.name, dtype, shape, layout_of(len(shape)))


def _manifest() -> bytes:
    """What is in the package, and which item is the model; each has an identifier, which could be any."""
    items = [{"author": who, "name": name, "path": f"{who}/{name}", "description": what} for who, name, what in _ITEMS]
    entries = {str(uuid.uuid5(uuid.NAMESPACE_URL, each["path"])): each for each in items}
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": next(iter(entries))}
    return json.dumps(manifest, indent=2).encode()
