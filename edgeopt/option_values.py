"""Values that several options take: sizes of images, statistics of their channels, times.

Each says what is wrong with a value, and what to write.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, PlainSerializer

from edgeopt.arrays import ImageSize, sides_of, size_of

Numbers = tuple[float, ...]


def _in_unit(values: Numbers) -> Numbers:
    """Raises for statistics of pixels that were not scaled to 0..1, as some libraries write them; and of 2 channels."""
    if max(values) > 1.0:
        divided = ", ".join(f"{value / 255:.4g}" for value in values)
        raise ValueError(
            f"{list(values)} look like values of pixels in 0..255, and pixels are scaled to 0..1 first: "
            f"divide by 255 and write [{divided}]"
        )
    if len(values) == 2:
        raise ValueError("write 3 numbers, or 1 where images are grey")
    return values


Share = Annotated[float, Field(ge=0.0, le=1.0)]
PosixPath = Annotated[Path, PlainSerializer(lambda path: Path(path).as_posix(), return_type=str)]
Byte = Annotated[int, Field(ge=0, le=255)]
Mixed = Annotated[float, Field(ge=0.0, le=10.0)]
"""Of Beta(a, a), by which images are blended; 0 for none."""
ScaleFactor = Annotated[float, Field(ge=0.25, le=4.0)]
BatchSize = Annotated[int, Field(ge=1, le=1024)]
"""Images in a call."""
ThreadCount = Annotated[int, Field(ge=1, le=256)]
"""Threads of a runtime."""
Positive = Annotated[float, Field(gt=0)]
ChannelMeans = Annotated[tuple[float, ...], Field(min_length=1, max_length=3), AfterValidator(_in_unit)]
"""Of each channel, 3 or 1, for pixels scaled to 0..1; values in pixels are refused with what to write."""
ChannelDeviations = Annotated[tuple[Positive, ...], Field(min_length=1, max_length=3), AfterValidator(_in_unit)]
"""Of each channel, 3 or 1, for pixels scaled to 0..1; values in pixels are refused with what to write."""
GREY_MEAN, GREY_STD = (0.459,), (0.226,)  # ImageNet's, with the weights that red, green and blue have in grey


def with_grey_statistics(values: Any) -> Any:
    """The values of a model with those of grey for `mean` and `std` where images are grey and nothing is said."""
    if isinstance(values, Mapping) and values.get("channels") == 1:
        return {"mean": GREY_MEAN, "std": GREY_STD, **values}
    return values


def _size_between(least: int, most: int) -> BeforeValidator:
    """Says what is wrong with a size before the two ways to write one are tried one after the other."""

    def check(value: Any) -> Any:
        several = isinstance(value, list | tuple)
        sides = list(value) if several else [value]
        if (several and len(sides) != 2) or not all(
            isinstance(side, int) and not isinstance(side, bool) for side in sides
        ):
            raise ValueError("a size is a whole number for a square, or [height, width], such as [48, 192]")
        if wrong := [side for side in sides if not least <= side <= most]:
            bound = f"greater than or equal to {least}" if wrong[0] < least else f"less than or equal to {most}"
            raise ValueError(f"should be {bound}, and is {wrong[0]}")
        return size_of(*sides) if several else value

    return BeforeValidator(check)


_Side = Annotated[int, Field(ge=8, le=4096)]
_ResizedSide = Annotated[int, Field(ge=8, le=8192)]
SizeOption = Annotated[_Side | tuple[_Side, _Side], _size_between(8, 4096)]
"""Size of images, px: the edge of a square, or (height, width)."""
ResizedSize = Annotated[_ResizedSide | tuple[_ResizedSide, _ResizedSide], _size_between(8, 8192)]
"""Size before the middle is cut out, px: the shorter side, or (height, width)."""


def size_from_text(text: str) -> ImageSize:
    """A size as a command line has it, px: "96" or, height before width, "96x160". Raises `ValueError` for others."""
    sides = [side.strip() for side in text.lower().replace("×", "x").split("x")]
    if not 1 <= len(sides) <= 2 or not all(side.isdecimal() and 8 <= int(side) <= 4096 for side in sides):
        raise ValueError(f"{text!r} is no number from 8 to 4,096, nor two such as 96x160")
    return size_of(int(sides[0]), int(sides[-1]))


def frame_of(image_size: ImageSize, resize: ImageSize | None) -> ImageSize:
    """What an image has to cover before its middle is cut out, px: as high and wide as `resize` is written, or with
    a number for the shorter side and the ratio of `image_size`.
    """
    if not isinstance(resize, int):
        return resize or image_size
    height, width = sides_of(image_size)
    shorter = min(height, width)
    return size_of(round(height * resize / shorter), round(width * resize / shorter))


FORMER_NAMES = {
    "calibration_pictures": "calibration_images",
    "picture_size": "drawn_size",
    "pictures": "images",
    "repair_pictures": "repair_images",
    "statistics_pictures": "statistics_images",
}
"""What options are called now, by their former names."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smh])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_DAY_S = 24 * 3600.0


def seconds_of(text: str) -> float:
    """A time such as "10m", "90s" or "1h" in seconds. Raises `ValueError` for anything else, or more than a day."""
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not 0 < seconds <= _DAY_S:
        raise ValueError(f"{text!r} is no time up to a day: write it as 10m, 90s or 1h")
    return seconds


_Each = TypeVar("_Each", bound=Hashable)


def each_once(values: tuple[_Each, ...]) -> tuple[_Each, ...]:
    """The values in their order, each where it comes first."""
    return tuple(dict.fromkeys(values))


def _duration(text: str) -> str:
    seconds_of(text)
    return text.strip()


Duration = Annotated[str, AfterValidator(_duration)]
"""A time such as "10m"."""


def _energy_asked(value: Any) -> Any:
    """Says what there is before the words of each part of the type do."""
    if value not in (True, False, "devices"):
        raise ValueError(f'write true, false or "devices", and not {value!r}')
    return value


EnergyAsked = Annotated[bool | Literal["devices"], BeforeValidator(_energy_asked)]
"""Whether energy is measured: on this machine and on devices, or on devices alone."""


class Protocol(StrEnum):
    """By which rule latency is measured."""

    CALLS = "calls"
    SINGLE_STREAM = "single-stream"


def _rising(values: tuple[float, float]) -> tuple[float, float]:
    if values[0] > values[1]:
        raise ValueError(f"goes from the smaller to the larger, not from {values[0]:g} to {values[1]:g}")
    return values


ScaleRange = Annotated[tuple[ScaleFactor, ScaleFactor], AfterValidator(_rising)]
"""Factors from the smaller to the larger."""


def without_usual(options: BaseModel, values: dict[str, Any], later: Iterable[str]) -> dict[str, Any]:
    """Options as JSON without those of `later`, which came when there were recipes, that have their default."""
    usual = {name: type(options).model_fields[name].default for name in later}
    return {name: value for name, value in values.items() if name not in usual or getattr(options, name) != usual[name]}
