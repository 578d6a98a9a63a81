"""Sound as an image: short-time Fourier transform, mel bands, decibels."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from edgeopt.plugins import DataError, Problem, sides_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Pixels
    from edgeopt_audio.options import SoundOptions

    Samples = NDArray[np.float32]

_SILENCE = 1e-20  # power that stands for none, which has no logarithm: far below what the quietest recording holds


def image(samples: Samples, options: SoundOptions) -> Pixels:
    """Uint8 (height, width), as the preprocessing wants it: time from left to right, frequency upwards.

    The loudest place is white, what is `floor_db` below it and quieter is black. `samples` is float32 (n,), at
    `options.sample_rate`.
    """
    power = _power(samples, options.n_fft, options.hop_length)
    if options.kind == "log-mel":
        power = mel_filters(options.mel_bands, options.n_fft, options.sample_rate) @ power
    decibels = 10 * np.log10(np.maximum(power, _SILENCE))
    grey = np.clip(1 - (decibels - decibels.max()) / options.floor_db, 0, 1)
    pixels = np.rint(255 * grey[::-1]).astype(np.uint8)
    height, width = sides_of(options.frame)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def _power(samples: Samples, n_fft: int, hop_length: int) -> NDArray[np.float64]:
    """Power (n_fft // 2 + 1, windows), each window centred on its place, with Hann's weights."""
    padded = np.pad(samples, n_fft // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    weights = np.hanning(n_fft + 1)[:-1]  # periodic
    spectrum = np.fft.rfft(windows * (2 * weights / weights.sum()), axis=1)
    return np.square(np.abs(spectrum)).T


@cache
def mel_filters(bands: int, n_fft: int, sample_rate: int) -> NDArray[np.float64]:
    """Weights (bands, n_fft // 2 + 1) of triangles that stand evenly on the mel scale, from 0 Hz to half the rate.

    Raises `DataError` when a triangle is so narrow that no frequency of the transform is in it.

    Source: S. S. Stevens, J. Volkmann and E. B. Newman, "A Scale for the Measurement of the Psychological Magnitude
    Pitch" (1937), in D. O'Shaughnessy's formula (1987).
    """
    highest = 2595 * np.log10(1 + sample_rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, highest, bands + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    rising = (frequencies - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - frequencies) / (corners[2:] - corners[1:-1])[:, None]
    filters: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    empty = np.flatnonzero(filters.sum(axis=1) == 0)
    if len(empty):
        raise DataError(
            Problem(
                f"{bands} mel bands are too many for n_fft = {n_fft} at {sample_rate} samples a second: band "
                f"{empty[0]} holds no "
                "frequency",
                "lower mel_bands or raise n_fft",
                option="mel_bands",
            )
        )
    return filters
