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

from edgeopt.arrays import normalized
from edgeopt.errors import DataError, Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from edgeopt.arrays import Pixels

Interpolation = Literal["nearest", "bilinear", "bicubic"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
WHITE = (255, 255, 255)
GREY_BITS = 16
DEPTH = "grey_bits"
"""In `Image.info`: how many bits the values of a 16-bit image have, where its file says so."""

_ORIENTATION = 0x0112  # the EXIF tag
_RESIZED_MOST = 2**24  # px of a resized image: beyond that only the part that is kept is resized


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side to `resize` px, cut the `crop`-px square in the middle, scale to 0..1, subtract `mean`,
    divide by `std`.

    What is transparent shows `background`, red, green and blue in 0..255. Grey values of 16-bit images run to
    2 ** `grey_bits` - 1, unless a file says otherwise of itself.
    """

    image_size: int
    resize: int
    crop: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Interpolation = "bilinear"
    channel_order: Literal["RGB"] = "RGB"
    background: tuple[int, int, int] = WHITE
    grey_bits: int = GREY_BITS

    def to_json(self) -> dict[str, Any]:
        """The description as it stands in a card."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Preprocessing:
        """Reads what `to_json` gave."""
        lists: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return Preprocessing(**lists)

    def at_size(self, image_size: int) -> Preprocessing:
        """The same for images of another size: the middle that is kept shows as much of the image."""
        resize = max(image_size, round(self.resize * image_size / self.image_size))
        return replace(self, image_size=image_size, resize=resize, crop=image_size)

    def pixels(self, image: Any) -> Pixels:
        """A decoded image as uint8 (image_size, image_size, 3), RGB, upright.

        Takes a `PIL.Image.Image` or a uint8 array (height, width) or (height, width, 3).

        Raises `DataError` for an array of another type or shape, and for an image whose range of values nobody knows.
        """
        import numpy as np  # numpy and Pillow are heavy, and importing this module is part of `edgeopt check`

        upright = _upright(_as_image(image))
        opaque = _on_ground(_eight_bits(upright, self.grey_bits), self.background)
        return np.asarray(self._square(opaque), dtype=np.uint8)

    def _square(self, image: Image.Image) -> Image.Image:
        """The middle of the resized image. Of one that would become very long, only that middle is ever made."""
        from PIL import Image  # heavy, see above

        method = Image.Resampling[self.interpolation.upper()]
        scale = self.resize / min(image.size)
        width, height = (max(self.crop, round(side * scale)) for side in image.size)
        left, top = (width - self.crop) // 2, (height - self.crop) // 2
        if width * height > max(_RESIZED_MOST, 8 * self.resize**2):
            x0, x1, x_low, x_high = _source_of(left, self.crop, width, image.width)
            y0, y1, y_low, y_high = _source_of(top, self.crop, height, image.height)
            near = image.crop((x0, y0, x1, y1))
            return near.resize((self.crop, self.crop), method, box=(x_low, y_low, x_high, y_high))
        if (width, height) != image.size:
            image = image.resize((width, height), method)
        if (width, height) != (self.crop, self.crop):
            image = image.crop((left, top, left + self.crop, top + self.crop))
        return image

    def scale_and_offset(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per channel `scale` and `offset` such that input = pixel * scale + offset."""
        scale = tuple(1.0 / (255.0 * std) for std in self.std)
        offset = tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))
        return scale, offset

    def normalize(self, pixels: Pixels) -> NDArray[np.float32]:
        """Pixels, uint8 (n, height, width, 3), as the model's input: float32 (n, 3, height, width), contiguous."""
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


def _as_image(image: Any) -> Image.Image:
    import numpy as np  # heavy, see above
    from PIL import Image

    if isinstance(image, Image.Image):
        return image
    array = np.asarray(image)
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise DataError(
            Problem(
                f"an image is an array of {array.dtype} with shape {array.shape}",
                "a data set gives images as Pillow has them, or as uint8 arrays (height, width) or (height, width, 3): "
                "scale other values to 0..255",
            )
        )
    return Image.fromarray(array)


def _upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF block says that it was held; a block that cannot be read says nothing."""
    from PIL import Image  # heavy, see above

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    try:
        # not ImageOps.exif_transpose, which also writes the block anew: cameras and editors leave blocks that can be
        # read and not written
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # Pillow raises SyntaxError, struct.error, TypeError and more for broken blocks
        return image
    turn = turns.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image, grey_bits: int) -> Image.Image:
    """Grey of 16 bits as grey of 8: Pillow would clip its values instead of scaling them."""
    import numpy as np  # heavy, see above
    from PIL import Image

    if image.mode in ("I", "F"):
        raise DataError(
            Problem(
                f"its pixels are 32-bit numbers (mode {image.mode}) of unknown range",
                "scale them to 0..255, or to 16 bits, and save it again",
            )
        )
    if not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    bits = int(image.info.get(DEPTH, grey_bits))
    if (most := int(values.max(initial=0))) >= 2**bits:
        raise DataError(
            Problem(
                f"it holds the value {most}, and grey_bits = {bits} allows up to {2**bits - 1}",
                f"set grey_bits = {most.bit_length()}",
                option="grey_bits",
            )
        )
    grey = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _on_ground(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """RGB: what is transparent shows the ground, and not the colours that a file happens to keep below it."""
    from PIL import Image  # heavy, see above

    if not image.has_transparency_data:
        return image.convert("RGB")
    whole = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    ground = Image.new("RGBA", whole.size, (*background, 255))
    return Image.alpha_composite(ground, whole).convert("RGB")
