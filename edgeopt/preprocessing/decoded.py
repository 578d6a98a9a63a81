"""A decoded image as plain colours: upright, opaque, eight bits a value.

This module goes to devices as it is, with the others of its room and Pillow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeopt.errors import DataError, Problem

if TYPE_CHECKING:
    from PIL import Image

WHITE = (255, 255, 255)
GREY_BITS = 16
DEPTH = "grey_bits"
"""In `Image.info`: how many bits the values of a 16-bit image have, where its file says so."""

LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue in grey, from ITU-R BT.601."""
_ORIENTATION = 0x0112  # the EXIF tag


def plain_image(image: Any, background: tuple[int, int, int], grey_bits: int, channels: int) -> Image.Image:
    """A `PIL.Image.Image`, or a uint8 array (height, width) or (height, width, 3), as an upright image of mode RGB, or
    L of one channel: 0.299 red + 0.587 green + 0.114 blue, as Pillow rounds it.

    Raises `DataError` for an array of another type or shape, and for an image whose range of values nobody knows.
    """
    opaque = _on_ground(_eight_bits(upright(as_image(image)), grey_bits), background)
    return opaque.convert("L") if channels == 1 else opaque


def as_image(image: Any) -> Image.Image:
    """What a data set gives for an image, as Pillow has it; raises `DataError` for anything else."""
    import numpy as np  # heavy, as Pillow is, and importing this module is part of `edgeopt check`
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


def upright(image: Image.Image) -> Image.Image:
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
