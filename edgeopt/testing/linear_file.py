"""A file of one linear layer, for tests of devices. This module goes to devices as it is: it needs NumPy alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class LinearFile:
    """A weight, float32 (pixels, classes), in the format of NumPy."""

    def __init__(self, path: Path) -> None:
        self._weight = np.load(path, allow_pickle=False)

    def predict(self, batch: Any) -> Any:
        """The logits, float32 (n, classes), alone."""
        return (batch.reshape(len(batch), -1) @ self._weight,)


def open_file(path: Path, _threads: int) -> LinearFile:
    """The file, opened."""
    return LinearFile(path)
