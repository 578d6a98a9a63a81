"""Opens a `.param` file with its `.bin` where edgeopt is not. This module goes to devices as it is, with
`edgeopt.export.companions`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ncnn
import numpy as np

from edgeopt.export.companions import require_weights

MARK = b"#edgeopt "
"""Begins the line behind the layers, where ncnn stops to read: the SHA-256 of the rest of the file and of the `.bin`.
Behind it stands the card."""
_CHANNELS = {1: ncnn.Mat.PixelType.PIXEL_GRAY, 3: ncnn.Mat.PixelType.PIXEL_RGB}


@dataclass(frozen=True)
class Param:
    """A `.param` file: the `layers`, the card's `card_json`, and the SHA-256 of the `.bin` that belongs to it."""

    layers: bytes
    card_json: str
    bin_sha256: str

    def content(self) -> bytes:
        """The file's bytes."""
        card = self.card_json.encode()
        return b"%b%b%b %b\n%b" % (self.layers, MARK, _sha256(self.layers + card), self.bin_sha256.encode(), card)


def read_param(path: Path) -> Param:
    """What a `.param` file holds.

    Raises `ValueError` where it is none that edgeopt wrote, or is damaged.
    """
    layers, mark, rest = path.read_bytes().partition(MARK)
    line, _, card = rest.partition(b"\n")
    own, _, other = line.partition(b" ")
    if not mark:
        raise ValueError(f"{path} was cut off, or edgeopt did not write it: the line {MARK.decode()!r} is missing")
    if own != _sha256(layers + card):
        raise ValueError(f"{path} is damaged: it is not as it was written")
    return Param(layers, card.decode(), other.decode())


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


class OpenFile:
    """A file that answers for one image in a call, as ncnn does."""

    def __init__(self, path: Path, threads: int) -> None:
        param = read_param(path)
        weights = require_weights(path, param.bin_sha256)
        self.card = json.loads(param.card_json)
        self.outputs: list[dict[str, Any]] = self.card.get("outputs") or [self.card["output"]]
        self._net = ncnn.Net()
        options = self._net.opt
        options.num_threads = threads
        options.use_vulkan_compute = False
        # By default ncnn computes any file in float16 where a processor can, as most of ARM's, and in float32 on x86:
        # one file would answer in two ways. Here the file decides, so that float32 and int8 answer alike everywhere.
        is_half = self.card["precision"] == "float16"
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = is_half
        options.use_bf16_storage = False
        if self._net.load_param(str(path)) or self._net.load_model(str(weights)):
            raise ValueError(f"ncnn cannot open {path}: it has a layer that this ncnn does not have")

    def predict(self, batch: Any) -> Any:
        """An array (1, ...) for each output, for one image as the file takes it."""
        return self.outputs_of(self.extractor(batch[0]))

    def extractor(self, image: Any) -> Any:
        """What computes each value of the network that it is asked for, for one image as the file takes it."""
        extractor = self._net.create_extractor()
        extractor.input(self.card["input"]["name"], _as_taken(image))
        return extractor

    def outputs_of(self, extractor: Any) -> Any:
        """An array (1, ...) for each output, of an extractor that has its image."""
        return tuple(self._output(extractor, **each) for each in self.outputs)

    def _output(self, extractor: Any, name: str, shape: list[int], dtype: str, **_: Any) -> Any:
        failed, values = extractor.extract(name)
        if failed:
            raise RuntimeError(f"ncnn could not compute {name}; its own messages are above")
        return np.array(values).astype(dtype, copy=False).reshape(shape)

    def close(self) -> None:
        """Free the file's memory."""
        self._net.clear()


def _as_taken(image: Any) -> Any:
    """An image of float32 (channels, height, width), or of bytes (height, width, channels), as ncnn has it."""
    image = np.ascontiguousarray(image)
    if image.dtype != np.uint8:
        return ncnn.Mat(image).clone()  # a copy, whose channels are aligned
    height, width, channels = image.shape
    return ncnn.Mat.from_pixels(image, _CHANNELS[channels], width, height)


def open_file(path: Path, threads: int) -> OpenFile:
    """The file, opened in ncnn on the processor.

    Raises `ValueError` where it or its `.bin` is missing or damaged, or ncnn cannot load it.
    """
    return OpenFile(path, threads)
