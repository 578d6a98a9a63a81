"""Small constants kept within the delegate that reads them, instead of under a name in the file.

ExecuTorch keeps each constant of XNNPACK in a segment of its own, which is found by the hash of its bytes: a name in
the file, the same in the delegate, and an entry that says where the segment stands, a quarter of a kilobyte together.
An int8 network has hundreds of constants that are not much larger than that: scales and biases, and the weights of
depthwise layers. XNNPACK's format has a place for constants in the delegate itself, and reads them from there where
they have no name.

Large ones keep their names: where several delegates read one, as where the heads of a detector share their weights,
the file holds it once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from executorch.backends.xnnpack import xnnpack_preprocess
from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import ConstantDataOffset
from executorch.exir._serialize._named_data_store import NamedDataStore

_SMALL_BYTES = 16_384
_ALIGNMENT = 16  # XNNPACK's of constants


class _Store(NamedDataStore):  # type: ignore[misc]  # ExecuTorch ships no types
    """A delegate's constants, the small ones by their name apart from those that the file will hold."""

    def __init__(self) -> None:
        super().__init__()
        self.small: dict[str, bytes] = {}

    def add_named_data(
        self, key: str, data: Any, alignment: int = 1, external_tag: str | None = None, tensor_layout: Any = None
    ) -> None:
        if isinstance(data, bytes) and len(data) < _SMALL_BYTES and external_tag is None:
            self.small[key] = data
        else:
            super().add_named_data(key, data, alignment, external_tag, tensor_layout)

    def within(self, constants: list[Any], content: bytes) -> bytes:
        """What the delegate holds itself; entries of `constants` that stand in it lose their name, in place."""
        held = bytearray(content)
        offsets: dict[str, int] = {}
        for place, entry in enumerate(constants):
            data = self.small.get(entry.named_key)
            if data is None:
                continue
            if entry.named_key not in offsets:
                held.extend(bytes(-len(held) % _ALIGNMENT))
                offsets[entry.named_key] = len(held)
                held.extend(data)
            # no name, where an empty one would still be looked for
            constants[place] = ConstantDataOffset(offset=offsets[entry.named_key], size=entry.size, named_key=None)
        return bytes(held)


@contextmanager
def small_constants_within() -> Iterator[None]:
    """Within, a lowered delegate holds its small constants itself."""
    serialize = xnnpack_preprocess.serialize_xnnpack_binary
    stores: list[_Store] = []

    def new_store() -> _Store:
        stores.append(_Store())
        return stores[-1]

    def serialize_with_constants(graph: Any, content: bytes) -> bytes:
        written: bytes = serialize(graph, stores.pop().within(graph.constant_data, bytes(content)))
        return written

    with (
        patch.object(xnnpack_preprocess, "NamedDataStore", new_store),
        patch.object(xnnpack_preprocess, "serialize_xnnpack_binary", serialize_with_constants),
    ):
        yield
