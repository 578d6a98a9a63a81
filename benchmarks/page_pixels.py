"""What the page of `edgeopt serve --static` makes of an image, against Python: 200 odd images, pixel by pixel.

Sides from 1 to 2,000 px, grey, palettes, transparency, 16 bits, EXIF, in the formats that browsers read. Resizing is the
same to the last bit, and so is all of it but where an image is half transparent: a browser keeps such colours times their
opacity, in bytes, so that they are a level off before they are resized.
"""

from __future__ import annotations

import io
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from bars import Bar, finish
from PIL import Image

from edgeopt.arrays import sides_of, size_in_words
from edgeopt.preprocessing import Preprocessing
from edgeopt.preprocessing.decoded import _eight_bits, _on_ground, upright
from edgeopt_web.browser import Browser, require_browser
from edgeopt_web.local_server import LocalServer

COUNT = 200
OPAQUE, CLEAR = "opaque", "half transparent"
_SERVING = Path(__file__).parents[1] / "edgeopt" / "serving"
_READ = """(async () => {
  const { decoded, pixels } = await import("/preprocessing.js");
  const blob = new Blob([await (await fetch("/input")).arrayBuffer()]);
  const description = %s;
  const image = await decoded(blob, description);
  const cut = pixels(image, description);
  const body = new Uint8Array(cut.length + image.data.length);
  body.set(cut);
  body.set(image.data, cut.length);
  await fetch("/output", { method: "POST", body });
  return [image.width, image.height];
})()"""


@dataclass(frozen=True)
class OddImage:
    """An encoded image, how it is to be prepared, and whether it is `OPAQUE` or `CLEAR`."""

    name: str
    content: bytes
    preprocessing: Preprocessing
    kind: str


def odd_images(count: int, seed: int = 0) -> Iterator[OddImage]:
    """So many odd images."""
    random = np.random.default_rng(seed)
    makers = [_png, _grey, _clear, _palette, _deep, _jpeg, _coarse, _turned, _webp, _lossy, _gif, _bmp]
    for number in range(count):
        maker = makers[number % len(makers)]
        width, height = (int(2 ** random.uniform(0, 11)) for _ in range(2))
        drawn = _scene(random, width, height)
        crop = int(random.integers(8, 225))
        resize = crop + int(random.integers(0, 33))
        interpolation = ("bilinear", "bicubic", "nearest")[number // len(makers) % 3]
        background = tuple(int(value) for value in random.integers(0, 256, 3))
        preprocessing = Preprocessing(crop, resize, crop, interpolation=interpolation, background=background)  # type: ignore[arg-type]
        preprocessing = _of_other_shape(preprocessing, (number + number // len(makers)) % 4)
        content, kind = maker(drawn, random)
        size = size_in_words(preprocessing.image_size)
        name = f"{number}: {maker.__name__[1:]} {width} × {height} to {size}, {preprocessing.fit}, {interpolation}"
        yield OddImage(name, content, preprocessing, kind)


def _of_other_shape(square: Preprocessing, which: int) -> Preprocessing:
    """A square as it is, wide with its middle, letterboxed in grey, or stretched upright."""
    edge, (resize, _) = square.size[0], sides_of(square.resize)
    if which == 1:
        return replace(square, image_size=(edge, 2 * edge), resize=(resize, 2 * resize), crop=(edge, 2 * edge))
    if which == 2:
        size = (edge, 3 * edge)
        told = {"channel_order": "grey", "mean": (0.5,), "std": (0.25,), "fit": "letterbox"}
        return replace(square, image_size=size, resize=size, crop=size, **told)  # type: ignore[arg-type]
    size = (2 * edge, edge)
    return replace(square, image_size=size, resize=size, crop=size, fit="stretch") if which == 3 else square


def _scene(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """Something with edges, slopes and noise."""
    small = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noisy = smooth + random.integers(-20, 21, smooth.shape)
    noisy[height // 3 : height // 2, width // 4 : width // 2] = random.integers(0, 256, 3)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _saved(image: Image.Image, file_format: str, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **how)
    return file.getvalue()


def _png(image: Image.Image, _random: np.random.Generator) -> tuple[bytes, str]:
    return _saved(image, "PNG"), OPAQUE


def _grey(image: Image.Image, _random: np.random.Generator) -> tuple[bytes, str]:
    return _saved(image.convert("L"), "JPEG", quality=80), OPAQUE


def _clear(image: Image.Image, random: np.random.Generator) -> tuple[bytes, str]:
    image.putalpha(Image.fromarray(random.integers(0, 256, (image.height, image.width), dtype=np.uint8)))
    return _saved(image if random.random() < 0.5 else image.convert("LA"), "PNG"), CLEAR


def _palette(image: Image.Image, _random: np.random.Generator) -> tuple[bytes, str]:
    return _saved(image.quantize(32), "PNG", transparency=3), OPAQUE


def _deep(image: Image.Image, random: np.random.Generator) -> tuple[bytes, str]:
    values = np.asarray(image.convert("L")).astype(np.uint16) * 257
    values = np.clip(values + random.integers(0, 200, values.shape), 0, 65535).astype(np.uint16)
    return _saved(Image.fromarray(values), "PNG"), OPAQUE


def _jpeg(image: Image.Image, random: np.random.Generator) -> tuple[bytes, str]:
    return _saved(image, "JPEG", quality=90, subsampling=0, progressive=bool(random.random() < 0.5)), OPAQUE


def _coarse(image: Image.Image, _random: np.random.Generator) -> tuple[bytes, str]:
    return _saved(image, "JPEG", quality=85), OPAQUE


def _turned(image: Image.Image, random: np.random.Generator) -> tuple[bytes, str]:
    exif = Image.Exif()
    exif[0x0112] = int(random.integers(1, 9))
    return _saved(image, "JPEG", quality=90, subsampling=0, exif=exif), OPAQUE


def _webp(image: Image.Image, _random: np.random.Generator) -> tuple[bytes, str]:
    return _saved(image, "WEBP", lossless=True), OPAQUE


def _lossy(image: Image.Image, _random: np.random.Generator) -> tuple[bytes, str]:
    return _saved(image, "WEBP", quality=80), OPAQUE


def _gif(image: Image.Image, _random: np.random.Generator) -> tuple[bytes, str]:
    return _saved(image.quantize(64), "GIF"), OPAQUE


def _bmp(image: Image.Image, _random: np.random.Generator) -> tuple[bytes, str]:
    return _saved(image, "BMP"), OPAQUE


@dataclass(frozen=True)
class Difference:
    """Grey levels between the page and Python, at most: of the whole way, of decoding, and of resizing."""

    image: OddImage
    whole: int
    decoding: int
    resizing: int


def differences(images: Iterable[OddImage]) -> Iterator[Difference]:
    """The differences for images, in one page of headless Chromium."""
    with (
        LocalServer({"/preprocessing.js": _SERVING / "preprocessing.js"}) as server,
        Browser.start(require_browser()) as browser,
    ):
        browser.go(server.address)
        for image in images:
            server.given = image.content
            preprocessing = image.preprocessing
            shape = preprocessing.shape
            width, height = browser.evaluate(_READ % json.dumps(preprocessing.to_json()))
            returned = np.frombuffer(server.returned, np.uint8)
            cut, seen = returned[: math.prod(shape)].reshape(shape), returned[math.prod(shape) :]
            seen = seen.reshape(height, width, 4)[..., :3]
            read = Image.open(io.BytesIO(image.content))
            opaque = np.asarray(
                _on_ground(_eight_bits(upright(read), preprocessing.grey_bits), preprocessing.background)
            )
            yield Difference(
                image,
                whole=_levels(cut, preprocessing.pixels(read)),
                decoding=_levels(seen, opaque),
                resizing=_levels(cut, preprocessing.pixels(np.ascontiguousarray(seen))),
            )


def _levels(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other).max())


def measure() -> tuple[Bar, ...]:
    """Prints a row for each kind, with the image that differs most."""
    kinds: dict[str, list[Difference]] = defaultdict(list)
    for each in differences(odd_images(COUNT)):
        kinds[each.image.kind].append(each)
    for kind, found in kinds.items():
        worst = max(found, key=lambda each: each.whole)
        same = sum(each.whole == 0 for each in found)
        print(f"{kind}: {same} of {len(found)} images the same; {worst.whole} levels off at most: {worst.image.name}")
    everything = [each for found in kinds.values() for each in found]
    return (
        Bar("resizing in the page is Python's (grey levels)", max(each.resizing for each in everything), 0),
        Bar("pixels of the page, opaque images (grey levels)", max(each.whole for each in kinds[OPAQUE]), 1),
        Bar("pixels of the page, half transparent, before resizing", max(each.decoding for each in kinds[CLEAR]), 1),
    )


if __name__ == "__main__":
    finish(*measure())
