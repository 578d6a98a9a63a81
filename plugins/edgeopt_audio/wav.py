"""Wav files as samples."""

from __future__ import annotations

import math
import struct
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from scipy.io import wavfile
from scipy.signal import firwin, resample_poly

from edgeopt.plugins import DataError, Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

# of chunks that players skip as well; set once, because the threads that read files share the filters
warnings.filterwarnings("ignore", category=wavfile.WavFileWarning)


def read_wav(path: Path, sample_rate: int) -> Samples:
    """A recording as float32 (n,), -1 to 1, its channels averaged, at `sample_rate` samples a second.

    Reads integers of 8 to 64 bits and floats, at any rate.

    Raises `DataError` naming the file when it is no such wav file, is cut short, or holds no sound.
    """
    try:
        with path.open("rb") as stream:
            missing = _missing_bytes(stream)
        if missing:
            raise ValueError(f"{missing} bytes of its sound are missing, the file is cut short")
        rate, data = wavfile.read(path)
        samples = _to_float(data)
        if not len(samples):
            raise ValueError("it holds no samples")
        if not np.isfinite(samples).all():
            raise ValueError("some of its samples are not numbers")
    except Exception as error:  # whatever the reader stumbles over, it is about this file
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(
            Problem(f"{path} cannot be read: {reason}", 'remove it, or set on_error = "skip" to go on without it')
        ) from error
    return resampled(samples, rate, sample_rate)


def resampled(samples: Samples, rate: int, sample_rate: int) -> Samples:
    """The same sound, float32 (m,), at another rate; frequencies that it cannot hold are filtered out."""
    if rate == sample_rate:
        return samples
    common = math.gcd(rate, sample_rate)
    up, down = sample_rate // common, rate // common
    changed: Samples = resample_poly(samples, up, down, window=_low_pass(up, down)).astype(np.float32)
    return changed


@cache
def _low_pass(up: int, down: int) -> NDArray[np.float32]:
    """The filter that scipy designs by itself, but anew in each call, which costs more than using it."""
    fastest = max(up, down)
    taps: Samples = firwin(20 * fastest + 1, 1 / fastest, window=("kaiser", 5.0)).astype(np.float32)
    return taps


def _to_float(data: NDArray[np.generic]) -> Samples:
    """Mono, -1 to 1; `data` is (n,) or (n, channels)."""
    scaled: NDArray[Any]
    if data.dtype == np.uint8:  # the one unsigned format
        scaled = (data.astype(np.float32) - 128) / 128
    elif np.issubdtype(data.dtype, np.integer):
        scaled = data.astype(np.float64) / -float(np.iinfo(str(data.dtype)).min)
    else:
        scaled = data
    return (scaled if scaled.ndim == 1 else scaled.mean(axis=1)).astype(np.float32)


def _missing_bytes(stream: BinaryIO) -> int:
    """How many bytes of the sound the header promises and the file lacks."""
    size = stream.seek(0, 2)
    stream.seek(12)  # RIFF, its length, WAVE: checked by whoever reads the file
    while len(header := stream.read(8)) == 8:
        name, length = struct.unpack("<4sI", header)
        if name == b"data":
            return max(0, length - (size - stream.tell())) if length != 0xFFFFFFFF else 0  # that length is unknown
        stream.seek(length + length % 2, 1)
    return 0
