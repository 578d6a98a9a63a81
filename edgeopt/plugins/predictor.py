"""A file opened in its runtime, as exporters give it and whatever answers or measures takes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:  # NumPy is heavy, and only named here
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Outputs, Pixels


class Predictor(Protocol):
    """A file opened in its own runtime."""

    def predict(self, batch: NDArray[np.float32] | Pixels) -> Outputs:
        """An array for each output of the file, in its order, for normalized float32 images (n, channels, height,
        width).

        Real numbers are float32, whatever the file's own types are, and integers that are no quantized numbers, such as
        classes, are as the file gives them. A classifier's only output are its logits, (n, classes). A file whose input
        holds pixels takes them as they are: uint8 (n, height, width, channels).
        """
        ...

    def close(self) -> None:
        """Frees what the open file holds: memory, threads, a device. Called once, after the last prediction.

        One that holds nothing may leave it out; `close_predictor` asks.
        """
        ...


@runtime_checkable
class RemotePredictor(Predictor, Protocol):
    """A predictor whose file is open in another process, such as a browser's page, and that tells what is known there.

    `load_ms` is what opening the file took, with the runtime's code in memory already, and `call_ms` what the last
    `predict` took of the file itself, the way to the other process and back not counted.
    """

    load_ms: float
    call_ms: float

    def peak_memory_bytes(self) -> int:
        """By how much the other process has grown, at most, since the file was opened."""
        ...


_Answer = TypeVar("_Answer")


def timed_call(predictor: Predictor, call: Callable[[], _Answer]) -> tuple[_Answer, float]:
    """What `call` returns, which is one prediction of `predictor`, and the milliseconds that the file took for it."""
    start = time.perf_counter()
    answer = call()
    taken = (time.perf_counter() - start) * 1e3
    return answer, predictor.call_ms if isinstance(predictor, RemotePredictor) else taken


def close_predictor(predictor: Predictor) -> None:
    """Closes a predictor, where it has a `close`."""
    close = getattr(predictor, "close", None)
    if close is not None:
        close()
