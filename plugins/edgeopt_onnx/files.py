"""Write an ONNX model as one file, or as a file and its weights beside it, after ONNX Runtime has opened it; read one
with the weights that stand beside it, and with none from elsewhere.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PureWindowsPath

import onnx

from edgeopt.files import storage_errors
from edgeopt.plugins import CheckpointError, Problem
from edgeopt_onnx.fusion import Fusion, fused
from edgeopt_onnx.options import ExternalData, companion

LARGEST_MESSAGE = 2**31 - 2**24
"""Bytes of weights that still fit into one file: protocol buffers end at 2 GB, some of which the graph needs."""
_SMALLEST_EXTERNAL = 1024  # bytes; shapes and scales stay in the graph, where shape inference finds them


def weight_bytes(model: onnx.ModelProto) -> int:
    """Size of a model's constants."""
    return sum(len(tensor.raw_data) or tensor.ByteSize() for tensor in model.graph.initializer)


def write(model: onnx.ModelProto, path: Path, external_data: ExternalData) -> tuple[int, Fusion]:
    """Write `model` aside, check it, open it in ONNX Runtime, and rename it into place with its companion, if any.

    Constants that are written into the companion are emptied in `model`. Returns the size in bytes of all that was
    written, and what ONNX Runtime fuses.

    Raises whatever ONNX Runtime raises for a model that it cannot open.
    """
    external = external_data == "always" or weight_bytes(model) > LARGEST_MESSAGE
    path.parent.mkdir(parents=True, exist_ok=True)
    with storage_errors(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        pending = Path(folder) / path.name
        if external:
            put_outside(model, companion(path).name)
            onnx.external_data_helper.write_external_data_tensors(model, folder)
        # Protocol buffers promise the same bytes for the same message only when asked to.
        pending.write_bytes(model.SerializeToString(deterministic=True))
        onnx.checker.check_model(pending, full_check=True)
        fusion = fused(pending)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        if companion(pending).exists():
            companion(pending).chmod(pending.stat().st_mode)  # onnx makes it for its owner alone
            companion(pending).replace(companion(path))
        pending.replace(path)
    return size, fusion


def read_model(path: Path) -> onnx.ModelProto:
    """The model of a file, with the weights that stand in other files of its folder, or in folders of that.

    Raises `CheckpointError` for weights that the file wants from elsewhere, of which none is read, and whatever onnx
    and protocol buffers raise for a file that they cannot read.
    """
    model = onnx.load(path, load_external_data=False)
    folder = path.parent.resolve()
    elsewhere: dict[str, str] = {}  # the first tensor of each place
    for tensor in _constants(model):
        for entry in tensor.external_data if tensor.data_location == onnx.TensorProto.EXTERNAL else ():
            if entry.key == "location" and not _is_inside(folder, entry.value):
                elsewhere.setdefault(entry.value, tensor.name)
    if elsewhere:
        raise CheckpointError(
            *(
                Problem(
                    f"{path}: wants the weights of {name!r} from {location!r}, outside of its folder: not read",
                    "put the file of weights itself, and no link to it, beside the model, and name it so there",
                )
                for location, name in elsewhere.items()
            )
        )
    onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    return model


def _is_inside(folder: Path, location: str) -> bool:
    """Whether a place, relative to a folder, is in it, links followed; Windows' own ways to leave it count anywhere."""
    if Path(location).is_absolute() or PureWindowsPath(location).drive or "\\" in location:
        return False
    return (folder / location).resolve().is_relative_to(folder)


def _constants(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _tensors(model.graph.node, model.graph)
    for function in model.functions:
        yield from _tensors(function.node)


def _tensors(nodes: Iterable[onnx.NodeProto], graph: onnx.GraphProto | None = None) -> Iterator[onnx.TensorProto]:
    """All constants of a graph: its own, those of its nodes' attributes, and those of graphs inside of these."""
    if graph is not None:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for attribute in (each for node in nodes for each in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner.node, inner)


def put_outside(model: onnx.ModelProto, location: str) -> None:
    """Mark the constants that are to be written to `location`: the large ones, or the largest where none is large.

    onnx's own function looks for a file of that name in the current folder, and refuses one that is there.
    """
    sizes = [len(tensor.raw_data) for tensor in model.graph.initializer]
    smallest = max(1, min(_SMALLEST_EXTERNAL, max(sizes, default=0)))
    for tensor, size in zip(model.graph.initializer, sizes, strict=True):
        if size >= smallest:
            onnx.external_data_helper.set_external_data(tensor, location)
