"""Outputs that files' processes keep for a while, so that those of another file for the same image can be compared."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path

from edgeopt.serving.job import kept_outputs

_MOST = 8


class KeptOutputs:
    """Which outputs lie in `folder`: of the latest few images and files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers: OrderedDict[tuple[str, bytes], int] = OrderedDict()
        self._next = 0

    def number(self, file: str, image: bytes) -> int | None:
        """The number under which the outputs of a file for an image, by its `digest`, are kept; None where not."""
        return self._numbers.get((file, image))

    def new(self) -> int:
        """A number that is free."""
        self._next += 1
        return self._next

    def add(self, file: str, image: bytes, number: int) -> None:
        """Says that they are kept now. The oldest go."""
        self._numbers[file, image] = number
        self._numbers.move_to_end((file, image))
        while len(self._numbers) > _MOST:
            _key, oldest = self._numbers.popitem(last=False)
            kept_outputs(self._folder, oldest).unlink(missing_ok=True)


def digest(image: bytes, *, is_prepared: bool) -> bytes:
    """What tells images apart."""
    return hashlib.blake2b(image, digest_size=16, salt=b"prepared" if is_prepared else b"").digest()
