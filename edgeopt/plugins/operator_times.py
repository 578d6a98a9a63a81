"""What each operator of a file takes, for `edgeopt bench --operators`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # NumPy is heavy, and only named here
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Pixels


@dataclass(frozen=True)
class OperatorTime:
    """One operator that the runtime calls: its name and kind as the runtime has them, and the median of a call, ms.

    `layer` is the layer of the network that it computes, as its module is called; empty where it is none, or where
    nobody can tell.
    """

    name: str
    kind: str
    ms: float
    layer: str = ""


@dataclass(frozen=True)
class OperatorTimesRequest:
    """A file, the images of each call, as its predictor takes them, and how often it is called: `runs` times after
    `warmup` times that do not count. `folder` takes files on the way.
    """

    path: Path
    batch: NDArray[np.float32] | Pixels
    threads: int
    warmup: int
    runs: int
    folder: Path
