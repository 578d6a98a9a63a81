"""The one description of how an image becomes a model's input.

Training, calibration, evaluation, serving and the app on the device all follow this description; it is written into
each artifact's card. It has two halves, split where a device splits them: `pixels` (decode, resize, crop: still uint8)
and `normalize` (uint8 to float).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from edgeopt.arrays import ImageSize, normalized, sides_of, size_of
from edgeopt.preprocessing.decoded import GREY_BITS, WHITE, as_image, plain_image, upright
from edgeopt.preprocessing.geometry import Fit, Geometry, geometry_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from edgeopt.arrays import Pixels

Interpolation = Literal["nearest", "bilinear", "bicubic"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_RESIZED_MOST = 2**24  # px of a resized image: beyond that only the part that is kept is resized


@dataclass(frozen=True)
class Preprocessing:
    """Bring an image to `image_size` as `fit` says, scale to 0..1, subtract `mean`, divide by `std`.

    Each size is the edge of a square, or (height, width), in px. "crop" resizes the image, its ratio kept, until it
    covers `resize`, and cuts `crop`, which is `image_size`, out of the middle: of a square that is to resize the
    shorter side. "letterbox" resizes it until it fits into `image_size`, and fills what is left with `background`;
    "stretch" resizes each side by itself. Of these two, `resize` is `image_size`.

    What is transparent shows `background`, red, green and blue in 0..255. Grey values of 16-bit images run to
    2 ** `grey_bits` - 1, unless a file says otherwise of itself. `channel_order` is "RGB", or "grey" of one channel;
    `mean` and `std` have a number for each channel.
    """

    image_size: ImageSize
    resize: ImageSize
    crop: ImageSize
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Interpolation = "bilinear"
    channel_order: Literal["RGB", "grey"] = "RGB"
    background: tuple[int, int, int] = WHITE
    grey_bits: int = GREY_BITS
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        for name in ("image_size", "resize", "crop"):  # a square has one way to be written
            object.__setattr__(self, name, size_of(*sides_of(getattr(self, name))))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the network sees, px."""
        return sides_of(self.image_size)

    @property
    def channels(self) -> int:
        """3, or 1 where the network sees grey."""
        return 1 if self.channel_order == "grey" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the pixels of an image: (height, width, channels)."""
        return (*self.size, self.channels)

    def to_json(self) -> dict[str, Any]:
        """The description as it stands in a card. `fit` is left out where it is "crop", as it was before there were
        others.
        """
        return {name: value for name, value in asdict(self).items() if (name, value) != ("fit", "crop")}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Preprocessing:
        """Reads what `to_json` gave."""
        lists: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return Preprocessing(**lists)

    def at_size(self, image_size: ImageSize) -> Preprocessing:
        """The same for images of another size: the middle that is kept shows as much of the image."""
        return replace(self, image_size=image_size, resize=self.frame_at(image_size), crop=image_size)

    def frame_at(self, image_size: ImageSize) -> ImageSize:
        """`resize` for images of another size, grown as each of its sides grows."""
        frame = zip(sides_of(image_size), self.size, sides_of(self.resize), strict=True)
        return size_of(*(max(side, round(resize * side / own)) for side, own, resize in frame))

    def pixels(self, image: Any) -> Pixels:
        """A decoded image as uint8 (height, width, channels), RGB or grey, upright.

        Takes a `PIL.Image.Image` or a uint8 array (height, width) or (height, width, 3).

        Raises `DataError` for an array of another type or shape, and for an image whose range of values nobody knows.
        """
        return self.pixels_and_geometry(image)[0]

    def pixels_and_geometry(self, image: Any) -> tuple[Pixels, Geometry]:
        """What `pixels` gives, and where its places come from."""
        import numpy as np  # numpy and Pillow are heavy, and importing this module is part of `edgeopt check`

        plain = plain_image(image, self.background, self.grey_bits, self.channels)
        geometry = self.geometry(plain.height, plain.width)
        return np.asarray(self._placed(plain, geometry), dtype=np.uint8).reshape(self.shape), geometry

    def geometry(self, height: int, width: int) -> Geometry:
        """Where the places of an image of `height` × `width` px come to lie; it counts as it is seen, upright."""
        return geometry_of(height, width, self.fit, sides_of(self.resize), self.size)

    def geometry_of(self, image: Any) -> Geometry:
        """Where the places of a decoded image come to lie, which is not resized for it; takes and raises what `pixels`
        does.
        """
        seen = upright(as_image(image))
        return self.geometry(seen.height, seen.width)

    def _placed(self, image: Image.Image, geometry: Geometry) -> Image.Image:
        """The image in its frame. Of one that would become very long, only the part that is kept is ever made."""
        from PIL import Image  # heavy, see above

        method = Image.Resampling[self.interpolation.upper()]
        (height, width), (tall, wide) = geometry.resized, geometry.network
        left, top = (-start for start in geometry.offset)
        frame_height, frame_width = sides_of(self.resize)
        if width * height > max(_RESIZED_MOST, 8 * frame_height * frame_width):
            x0, x1, x_low, x_high = _source_of(left, wide, width, image.width)
            y0, y1, y_low, y_high = _source_of(top, tall, height, image.height)
            near = image.crop((x0, y0, x1, y1))
            return near.resize((wide, tall), method, box=(x_low, y_low, x_high, y_high))
        if (width, height) != image.size:
            image = image.resize((width, height), method)
        if self.fit == "letterbox":
            return self._on_ground(image, geometry)
        if (width, height) != (wide, tall):
            image = image.crop((left, top, left + wide, top + tall))
        return image

    def _on_ground(self, image: Image.Image, geometry: Geometry) -> Image.Image:
        """The image within its frame, the ground around it."""
        from PIL import Image  # heavy, see above

        height, width = geometry.network
        framed = Image.new("RGB", (width, height), self.background).convert(image.mode)
        framed.paste(image, geometry.offset)
        return framed

    def scale_and_offset(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per channel `scale` and `offset` such that input = pixel * scale + offset."""
        scale = tuple(1.0 / (255.0 * std) for std in self.std)
        offset = tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))
        return scale, offset

    def normalize(self, pixels: Pixels) -> NDArray[np.float32]:
        """Pixels, uint8 (n, height, width, channels), as the model's input: float32 (n, channels, height, width),
        contiguous.
        """
        return normalized(pixels, *self.scale_and_offset())


def _source_of(start: int, length: int, resized: int, side: int) -> tuple[int, int, float, float]:
    """Where `length` px from `start` of a side come from that is resized from `side` to `resized` px.

    Whole px from first to last, with all neighbours that an interpolation looks at, and the exact places within them:
    Pillow keeps such places in 32 bits, which are few for a side of thousands of px.
    """
    scale = side / resized
    low, high = start * scale, (start + length) * scale
    around = math.ceil(2 * max(1.0, scale)) + 1
    first, last = max(0, math.floor(low) - around), min(side, math.ceil(high) + around)
    return first, last, low - first, min(high, side) - first
