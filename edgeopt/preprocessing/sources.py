"""The preprocessing of a model file that says how large its images are, and not how they were normalized."""

from __future__ import annotations

from edgeopt.arrays import ImageSize, sides_of, size_in_words, size_of
from edgeopt.errors import CheckpointError, Problem
from edgeopt.option_values import GREY_MEAN, GREY_STD
from edgeopt.preprocessing.description import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

_COLOURS = 3
_MOST_PIXELS = 1 << 26  # a square of 8,192; what is larger is a damaged number, and a batch of it fills any memory


def preprocessing_of_source(
    shape: tuple[int, int, int], mean: tuple[float, ...], std: tuple[float, ...]
) -> Preprocessing:
    """For images of `shape` (height, width, channels), normalized by what the options of a reader say.

    ImageNet's statistics, which options have by default, are those of grey where there is one channel.

    Raises `CheckpointError` for other channels than 3 and 1, and for statistics of other channels.
    """
    height, width, channels = shape
    if channels not in (1, _COLOURS):
        raise CheckpointError(
            f"it takes images of {channels} channels", hint="edgeopt converts models of 3 channels, or of 1"
        )
    if channels == 1:
        mean = GREY_MEAN if tuple(mean) == IMAGENET_MEAN else mean
        std = GREY_STD if tuple(std) == IMAGENET_STD else std
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            numbers = "1 number" if channels == 1 else f"{channels} numbers"
            raise CheckpointError(
                Problem(f"source.{name} has {len(values)} numbers, and the model takes {numbers}", f"write {numbers}")
            )
    size = size_of(height, width)
    return Preprocessing(size, size, size, mean, std, channel_order="grey" if channels == 1 else "RGB")


def chosen_size(given: tuple[int | None, int | None], wanted: ImageSize | None, what: str) -> tuple[int, int]:
    """Height and width of the images that a model takes, of those that its file has, None where one is open, and the
    size that is `wanted` for open ones. `what` is its file.

    Raises `CheckpointError` where one is open and none is wanted, and where another one is wanted.
    """
    written = " × ".join("any" if side is None else str(side) for side in given)
    if wanted is None:
        height, width = given
        if height is None or width is None:
            said = "size" if height is width else f"size, {written} px"
            hint = "choose one, with --size 224 or, height before width, as in --size 96x160"
            raise CheckpointError(f"{what}: takes images of any {said}", hint=hint)
        if min(height, width) < 1 or height * width > _MOST_PIXELS:
            raise CheckpointError(f"{what}: says that it takes images of {written} px", hint="export it again")
        return height, width
    sides = sides_of(wanted)
    if any(own not in (None, side) for own, side in zip(given, sides, strict=True)):
        raise CheckpointError(
            f"{what}: takes images of {written} px, and not of {size_in_words(wanted)} px",
            hint="leave source.image_size out" if None not in given else "choose a size that fits",
        )
    return sides
