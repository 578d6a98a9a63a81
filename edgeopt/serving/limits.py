"""What a stranger may ask of the server, and how long anybody waits."""

from __future__ import annotations

from dataclasses import dataclass

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The formats that are decoded, as Pillow names them."""
BROWSER_FORMATS = tuple(name for name in FORMATS if name != "TIFF")
"""Those of them that browsers decode by themselves."""


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes and pixels, times in seconds.

    An image has at most `image_bytes` and `pixels`, and arrives within `body_s`, without a pause of `pause_s`. All
    images that are held at once have at most `held_bytes`. A request waits `queue_s` for its turn at a file, which
    has at most `queue_length` waiting, and then `answer_s` for the answer. A file is open within `open_s`; one that is
    not is tried again, at the latest `again_s` later.
    """

    image_bytes: int = 20_000_000
    pixels: int = 50_000_000
    held_bytes: int = 256_000_000
    body_s: float = 60.0
    pause_s: float = 10.0
    queue_s: float = 10.0
    queue_length: int = 1_000
    answer_s: float = 60.0
    open_s: float = 180.0
    again_s: float = 30.0
