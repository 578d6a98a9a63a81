"""C++ around a file, made from its card: the array, how pixels become its input, labels, arena and operators."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined

from edgeopt.plugins import Card, Preprocessing
from edgeopt_tflm.operators import method
from edgeopt_tflm.predictor import quantized

_PER_LINE = 16  # bytes
_ALIGNMENT = 16  # bytes, of an arena and of a flatbuffer's constants


def write_sources(path: Path, card: Card, content: bytes) -> tuple[str, ...]:
    """Writes the header and the array beside the file at `path`; returns their names.

    `card` has the file's input, outputs and footprint.
    """
    header, array = path.with_suffix(".h"), path.with_suffix(".cc")
    header.write_text(header_text(card, path.stem), encoding="utf-8")
    array.write_text(array_text(content, header.name), encoding="utf-8")
    return header.name, array.name


def array_text(content: bytes, header: str) -> str:
    """The file as an array that stays in flash."""
    lines = (content[start : start + _PER_LINE] for start in range(0, len(content), _PER_LINE))
    body = "\n".join("    " + " ".join(f"0x{byte:02x}," for byte in line) for line in lines)
    return f'#include "{header}"\n\nalignas({_ALIGNMENT}) const unsigned char kModel[kModelBytes] = {{\n{body}\n}};\n'


def header_text(card: Card, name: str) -> str:
    """What a program on the device must know of a file called `name`."""
    assert card.footprint is not None  # whoever writes sources has completed the card
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)  # noqa: S701 — code, not HTML
    environment.filters |= {"float32": _float32, "quoted": _quoted}
    template = environment.from_string(Path(__file__).with_name("header.h.j2").read_text(encoding="utf-8"))
    return template.render(
        card=card,
        guard=f"EDGEOPT_{re.sub('[^A-Z0-9]', '_', name.upper())}_H_",
        taken=card.footprint,
        arena_bytes=-(-card.footprint.ram_bytes // _ALIGNMENT) * _ALIGNMENT,
        input=card.input,
        inputs=_inputs(card),
        mean=card.preprocessing["mean"],
        std=card.preprocessing["std"],
        order=card.preprocessing["channel_order"],
        methods=[method(kind) for kind in sorted(card.footprint.operators)],
    )


def _inputs(card: Card) -> list[list[int]]:
    """What each of 256 pixel values becomes, a row for each channel; computed here, so that no device rounds it
    otherwise, and none without an FPU computes it for every pixel.
    """
    assert card.input is not None  # as above
    preprocessing = Preprocessing.from_json(card.preprocessing)
    pixels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], preprocessing.channels, axis=1)
    rows: list[list[int]] = quantized(preprocessing.normalize(pixels[None, None]), card.input)[0, 0].T.tolist()
    return rows


def _float32(value: float) -> str:
    """A number with all its digits, as C++ has it."""
    return f"{float(value)!r}f"


def _quoted(text: str) -> str:
    """A text in quotes, its bytes as UTF-8."""
    return json.dumps(text, ensure_ascii=False)
