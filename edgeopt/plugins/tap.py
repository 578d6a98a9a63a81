"""What a file shows of its inner values, for `edgeopt why`: what an exporter's `tap` is given and returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgeopt.arrays import joined

if TYPE_CHECKING:  # NumPy and torch are heavy, and only named here
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Outputs, Pixels
    from edgeopt.types import ModelState


@dataclass(frozen=True, eq=False)
class SeenTensor:
    """One inner value of a file: float32 (n, ...), integers as what they stand for. Images may have channels last.

    `name` is the file's own. Where it is known, `node` is the program's node of that value; without it the tensor is
    recognized by what it holds.
    """

    name: str
    values: NDArray[np.float32]
    node: str = ""


@dataclass(frozen=True, eq=False)
class Seen:
    """The outputs for some images, as a predictor gives them, and what the file had on the way there, in any order."""

    outputs: Outputs
    tensors: Sequence[SeenTensor]

    @staticmethod
    def joined(pieces: Sequence[Seen]) -> Seen:
        """What was seen in several calls, one after the other, as if in one; each has the same tensors in one order."""
        values = joined([tuple(each.values for each in piece.tensors) for piece in pieces])
        tensors = [replace(each, values=own) for each, own in zip(pieces[0].tensors, values, strict=True)]
        return Seen(joined([piece.outputs for piece in pieces]), tensors)


class TappedFile(Protocol):
    """A file that shows its inner values, opened in its runtime.

    `how` says in a sentence how that is done, and whether the file or a copy of it is looked at.
    """

    @property
    def how(self) -> str: ...

    def run(self, batch: NDArray[np.float32] | Pixels) -> Seen:
        """What the file computes of images, which are as `Predictor.predict` takes them."""
        ...

    def close(self) -> None:
        """Frees what it holds."""
        ...


@dataclass(frozen=True)
class TapRequest:
    """What is to be looked at.

    `path` is the file, and `state` has the program that it was made from, in program form, as the exporter was given
    it; `options` are those of the exporter. `nodes` name the program's nodes whose values, float32, are asked for: in a
    quantized program those that dequantize. A file that shows other values as well, or cannot show all, is welcome.
    `folder` takes files for as long as the tapped file is open.
    """

    path: Path
    state: ModelState
    options: Any
    nodes: tuple[str, ...]
    threads: int
    folder: Path
