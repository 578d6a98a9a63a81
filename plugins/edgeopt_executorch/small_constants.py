"""Small constants kept within the delegate that reads them, instead of under a name in the file.

ExecuTorch keeps each constant of XNNPACK in a segment of its own, which is found by the hash of its bytes: a name in
the file, the same in the delegate, and an entry that says where the segment stands, a quarter of a kilobyte together.
An int8 network has hundreds of constants that are not much larger than that: scales and biases, and the weights of
depthwise layers. XNNPACK's format has a place for constants in the delegate itself, and reads them from there where
they have no name.

Large ones keep their names: where several delegates read one, as where the heads of a detector share their weights,
the file holds it once. So do small ones that are not a layer's weights or bias: XNNPACK copies those when it packs them
and reads all others, such as the slopes of a PReLU, when the network runs, when the delegate's bytes are freed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from executorch.backends.xnnpack import xnnpack_preprocess
from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import (
    ConstantDataOffset,
    XNNConv2d,
    XNNConvTranspose2d,
    XNNDepthwiseConv2d,
    XNNFullyConnected,
    XNNGraph,
)
from executorch.exir._serialize._named_data_store import NamedDataStore

_SMALL_BYTES = 16_384
_ALIGNMENT = 16  # XNNPACK's of constants


_PACKED = (XNNConv2d, XNNConvTranspose2d, XNNDepthwiseConv2d, XNNFullyConnected)
_PACKED_INPUTS = ("filter_id", "bias_id")


class _Store(NamedDataStore):  # type: ignore[misc]  # ExecuTorch ships no types
    """A delegate's constants, the small ones by their name apart from those that the file will hold."""

    def __init__(self) -> None:
        super().__init__()
        self.small: dict[str, tuple[bytes, int]] = {}  # with their alignment

    def add_named_data(
        self, key: str, data: Any, alignment: int = 1, external_tag: str | None = None, tensor_layout: Any = None
    ) -> None:
        if isinstance(data, bytes) and len(data) < _SMALL_BYTES and external_tag is None:
            self.small[key] = (data, alignment)
        else:
            super().add_named_data(key, data, alignment, external_tag, tensor_layout)

    def within(self, graph: XNNGraph, content: bytes) -> bytes:
        """What the delegate holds itself; entries of the graph's constants that stand in it lose their name, in place.

        The other small ones go where the large ones are.
        """
        held = bytearray(content)
        offsets: dict[str, int] = {}
        packed = _packed_constants(graph)
        for place, entry in enumerate(graph.constant_data):
            if entry.named_key not in self.small:
                continue
            data, alignment = self.small[entry.named_key]
            if place not in packed:
                super().add_named_data(entry.named_key, data, alignment)
                continue
            if entry.named_key not in offsets:
                held.extend(bytes(-len(held) % _ALIGNMENT))
                offsets[entry.named_key] = len(held)
                held.extend(data)
            # no name, where an empty one would still be looked for
            graph.constant_data[place] = ConstantDataOffset(offsets[entry.named_key], entry.size, named_key=None)
        return bytes(held)


def _packed_constants(graph: XNNGraph) -> set[int]:
    """The places of the constants that XNNPACK copies when it makes its operators: what is a layer's weights or bias,
    and nothing else's, and its scales.
    """
    packed: set[int] = set()
    read: set[int] = set()
    for node in (each.xnode_union for each in graph.xnodes):
        for name, value in vars(node).items():
            if name.endswith("_id"):
                (packed if isinstance(node, _PACKED) and name in _PACKED_INPUTS else read).add(value)
    places: dict[bool, set[int]] = {True: set(), False: set()}
    for value in (each.xvalue_union for each in graph.xvalues):
        tensor = getattr(value, "tensor_value", value)  # of integers, beside their scales
        scales = getattr(getattr(value, "quant_params", None), "scale_buffer_idx", 0)
        places[tensor.id_out in packed - read].update((tensor.constant_buffer_idx, scales))
    return places[True] - places[False]


@contextmanager
def small_constants_within() -> Iterator[None]:
    """Within, a lowered delegate holds its small constants itself."""
    serialize = xnnpack_preprocess.serialize_xnnpack_binary
    stores: list[_Store] = []

    def new_store() -> _Store:
        stores.append(_Store())
        return stores[-1]

    def serialize_with_constants(graph: Any, content: bytes) -> bytes:
        written: bytes = serialize(graph, stores.pop().within(graph, bytes(content)))
        return written

    with (
        patch.object(xnnpack_preprocess, "NamedDataStore", new_store),
        patch.object(xnnpack_preprocess, "serialize_xnnpack_binary", serialize_with_constants),
    ):
        yield
