"""What arrays are called in signatures, and what a file takes for an image. Light: NumPy appears in
annotations only.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:  # NumPy takes a tenth of a second, and is only named here
    import numpy as np
    from numpy.typing import NDArray

    Pixels: TypeAlias = NDArray[np.uint8]
    Labels: TypeAlias = NDArray[np.int64]
    Logits: TypeAlias = NDArray[np.float32]

Json: TypeAlias = Any  # a value that `json` writes: str, int, float, bool, None, list, dict


class InputKind(StrEnum):
    """What a file takes for an image: normalized floats, channels first, or pixels as a camera has them."""

    FLOAT_NCHW = "float-nchw"
    UINT8_NHWC = "uint8-nhwc"
