"""Images out of tar files: each is read where its index says that it stands."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.data.images import labels_of, open_image, unreadable
from edgeopt.data.walk import require_unchanged
from edgeopt_images.shard_files import Shard, file_system

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Labels
    from edgeopt_images.shard_index import ShardIndex

BLOCK_BYTES = 8 << 20
HELD_BLOCKS = 32


class Blocks:
    """Parts of files behind an address: whoever reads on gets its bytes out of a block that was fetched at once.

    The first image of a block is fetched alone, because who reads here and there would have no use for the rest. At
    most `held` blocks of `block_bytes` are kept.
    """

    def __init__(self, block_bytes: int = BLOCK_BYTES, held: int = HELD_BLOCKS) -> None:
        self._block_bytes = block_bytes
        self._held = held
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._touched: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, shard: Shard, start: int, size: int) -> bytes:
        """The `size` bytes from `start` on."""
        place = shard.place, start // self._block_bytes
        begins = place[1] * self._block_bytes
        inside = start + size <= begins + self._block_bytes
        with self._lock:
            block = self._blocks.get(place)
            if block is None and inside and place in self._touched:
                block = _fetched(shard, begins, min(begins + self._block_bytes, shard.size))
                self._blocks[place] = block
                if len(self._blocks) > self._held:
                    self._blocks.popitem(last=False)
            elif block is None:
                self._touched[place] = None
                if len(self._touched) > 4 * self._held:
                    self._touched.popitem(last=False)
            else:
                self._blocks.move_to_end(place)
        if block is not None and inside:
            return block[start - begins : start - begins + size]
        return _fetched(shard, start, start + size)


def _fetched(shard: Shard, start: int, end: int) -> bytes:
    files, path = file_system(shard.place)
    data: bytes = files.cat_file(path, start=start, end=end)
    return data


@dataclass(frozen=True, eq=False)
class ShardImages:
    """Images of several tar files, one behind the other: int64 (n,) each, in which file, where and how long.

    `window` says within how many images their order is shuffled where they are not cached.
    """

    shards: tuple[Shard, ...]
    file_of: NDArray[np.int64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: Labels
    keys: tuple[str, ...]
    window: int
    blocks: Blocks = field(default_factory=Blocks, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        shard = self.shards[self.file_of[index]]
        start, size, name = int(self.starts[index]), int(self.sizes[index]), self.name_of(index)
        if not shard.is_remote:
            file = Path(shard.place)
            require_unchanged(file, shard.size, int(shard.mark))
        try:
            if shard.is_remote:
                data = self.blocks.read(shard, start, size)
            else:
                with file.open("rb") as stream:
                    stream.seek(start)
                    data = stream.read(size)
        except Exception as error:  # each host and its library has errors of its own
            raise unreadable(name, error) from error
        return open_image(data, name)

    def name_of(self, index: int) -> str:
        """The file, and the name of the sample in it."""
        return f"{self.shards[self.file_of[index]].place}: {self.keys[index]}"


def shard_images(
    shards: Sequence[Shard], indices: Sequence[ShardIndex], labels: Sequence[int], window: int
) -> ShardImages:
    """The images that the indices of `shards` tell of, with a label for each."""
    counts = [len(index.keys) for index in indices]
    starts, sizes = (
        np.concatenate([np.asarray(getattr(index, name), dtype=np.int64) for index in indices])
        for name in ("starts", "sizes")
    )
    keys = tuple(key for index in indices for key in index.keys)
    file_of = np.repeat(np.arange(len(shards), dtype=np.int64), counts)
    return ShardImages(tuple(shards), file_of, starts, sizes, labels_of(labels), keys, window)
