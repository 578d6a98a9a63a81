"""A file opened in its runtime, as exporters give it and whatever answers or measures takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # NumPy is heavy, and only named here
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Logits, Pixels


class Predictor(Protocol):
    """A file opened in its own runtime."""

    def predict(self, batch: NDArray[np.float32] | Pixels) -> Logits:
        """Logits, float32 (n, classes), of normalized float32 images (n, 3, height, width), whatever the file's own
        types are.

        A file whose input holds pixels takes them as they are: uint8 (n, height, width, 3).
        """
        ...

    def close(self) -> None:
        """Frees what the open file holds: memory, threads, a device. Called once, after the last prediction.

        One that holds nothing may leave it out; `close_predictor` asks.
        """
        ...


def close_predictor(predictor: Predictor) -> None:
    """Closes a predictor, where it has a `close`."""
    close = getattr(predictor, "close", None)
    if close is not None:
        close()
