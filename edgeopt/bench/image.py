"""The image that every file is given: one of the user's, or one that is made here."""

from __future__ import annotations

from pathlib import Path

MADE_SIZE = (640, 480)
"""Width and height of the image that is made where none is given, px: what a small camera gives."""


def make_image(file: Path) -> None:
    """Writes a JPEG of smooth shapes and little noise, the same every time; it costs to decode what a photo costs."""
    import numpy as np  # heavy, and only a process that makes or decodes an image needs them
    from PIL import Image

    width, height = MADE_SIZE
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = smooth + generator.integers(-6, 7, smooth.shape, dtype=np.int16)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, format="JPEG", quality=90)
