"""The one description of how an image becomes a model's input.

Training, calibration, evaluation, serving and the app on the device all follow this description; it is written into
each artifact's card. It has two halves, split where a device splits them: `pixels` (decode, resize, crop: still uint8)
and `normalize` (uint8 to float).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Pixels

Interpolation = Literal["nearest", "bilinear", "bicubic"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side to `resize` px, cut the `crop`-px square in the middle, scale to 0..1, subtract `mean`,
    divide by `std`.
    """

    image_size: int
    resize: int
    crop: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Interpolation = "bilinear"
    channel_order: Literal["RGB"] = "RGB"

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

    def pixels(self, image: Any) -> Pixels:
        """A decoded image as uint8 (image_size, image_size, 3), RGB, upright.

        Takes a `PIL.Image.Image` or a uint8 array (height, width) or (height, width, 3).
        """
        # numpy and Pillow are heavy, and importing this module is part of `edgeopt check`
        import numpy as np
        from PIL import Image, ImageOps

        upright = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image, dtype=np.uint8))
        upright = ImageOps.exif_transpose(upright).convert("RGB")
        scale = self.resize / min(upright.size)
        width, height = (max(self.crop, round(side * scale)) for side in upright.size)
        if (width, height) != upright.size:
            upright = upright.resize((width, height), Image.Resampling[self.interpolation.upper()])
        left, top = (width - self.crop) // 2, (height - self.crop) // 2
        if (width, height) != (self.crop, self.crop):
            upright = upright.crop((left, top, left + self.crop, top + self.crop))
        return np.asarray(upright, dtype=np.uint8)

    def scale_and_offset(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per channel `scale` and `offset` such that input = pixel * scale + offset."""
        scale = tuple(1.0 / (255.0 * std) for std in self.std)
        offset = tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))
        return scale, offset

    def normalize(self, pixels: Pixels) -> NDArray[np.float32]:
        """Pixels, uint8 (n, height, width, 3), as the model's input: float32 (n, 3, height, width), contiguous."""
        import numpy as np  # heavy, see above

        scale, offset = (np.asarray(values, dtype=np.float32).reshape(1, 3, 1, 1) for values in self.scale_and_offset())
        planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)
        planes *= scale
        planes += offset
        return planes
