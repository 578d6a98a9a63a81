"""What a file takes as bytes, and what it returns, by its card."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeopt.plugins import Card, DeviceError, TensorInfo, as_outputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.plugins import Outputs, Pixels


def tensors_of(card: Card | None) -> tuple[TensorInfo, tuple[TensorInfo, ...]]:
    """The input and the outputs of a file. Raises `DeviceError` where its card does not tell them."""
    if card is None or card.input is None or not card.outputs:
        raise DeviceError("its card does not tell what it takes and returns", hint="run the recipe again")
    return card.input, card.outputs


def input_bytes(info: TensorInfo, pixels: Pixels, values: NDArray[np.float32] | None) -> bytes:
    """Images as a file takes them, one after the other.

    `values`, float32 (n, channels, height, width), are `pixels`, uint8 (n, height, width, channels), normalized; None
    where the file takes pixels. They are rounded as PyTorch quantizes, the same arithmetic with which `.tflite` files
    are fed here.
    """
    import numpy as np  # heavy: not for whoever only lists devices

    if values is None:
        return (pixels if info.layout == "NHWC" else pixels.transpose(0, 3, 1, 2)).tobytes()
    if info.scale is not None and info.zero_point is not None:
        limits = np.iinfo(info.dtype)
        steps = np.rint(values * np.float32(1.0 / info.scale)) + info.zero_point
        values = np.clip(steps, limits.min, limits.max)
    placed = values.transpose(0, 2, 3, 1) if info.layout == "NHWC" else values
    return placed.astype(info.dtype).tobytes()


def bytes_of(info: TensorInfo) -> int:
    """Bytes of one image's share of a tensor."""
    import numpy as np  # as above

    return int(np.dtype(info.dtype).itemsize) * math.prod(int(size) for size in info.shape[1:])


def outputs_in(infos: Sequence[TensorInfo], data: bytes, images: int) -> Outputs:
    """What a file returned for so many images, one after the other, each with all outputs one after the other: an
    array (images, ...) for each output, quantized numbers as float32 of what they stand for.

    Raises `DeviceError` where it is of another size.
    """
    import numpy as np  # as above

    sizes = [bytes_of(info) for info in infos]
    if len(data) != images * sum(sizes):
        raise DeviceError(f"its answers have {len(data)} bytes instead of {images * sum(sizes)}")
    rows, outputs = np.frombuffer(data, np.uint8).reshape(images, -1), []
    for info, end in zip(infos, itertools.accumulate(sizes), strict=True):
        own = np.ascontiguousarray(rows[:, end - bytes_of(info) : end])
        values = own.view(info.dtype).reshape(images, *(int(size) for size in info.shape[1:]))
        if info.scale is not None and info.zero_point is not None:
            values = (values.astype(np.float32) - info.zero_point) * np.float32(info.scale)
        outputs.append(values)
    return as_outputs(outputs)
