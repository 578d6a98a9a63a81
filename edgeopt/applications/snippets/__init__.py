"""The lines that feed a file, as a card says it, in the language of an app."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

from edgeopt.applications.classifiers import NO_CLASSES, NO_CLASSES_HINT, described, is_of_classes
from edgeopt.arrays import Json, sides_of
from edgeopt.cards.card import Card, TensorInfo
from edgeopt.errors import Problem, UserError, did_you_mean
from edgeopt.preprocessing import Preprocessing

_TEMPLATES = {"kotlin": "kotlin.kt.j2", "swift": "swift.swift.j2", "cpp": "cpp.cpp.j2", "python": "python.py.j2"}
LANGUAGES = tuple(_TEMPLATES)
"""The languages that lines can be printed in."""
_CPP = {"float32": "float", "int8": "std::int8_t", "uint8": "std::uint8_t"}
_SWIFT = {"float32": "Float", "int8": "Int8", "uint8": "UInt8"}
_TALL_FIRST_SINCE = 13  # of Pillow
_RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


def feeding_lines(card: Card, language: str, file: str) -> str:
    """Source text for `file`, the name of the model file.

    Raises `UserError` for a language that there is not, and for a card that says nothing of its tensors or has types
    that the lines do not know.
    """
    if language not in _TEMPLATES:
        raise UserError(
            Problem(f"--lang {language}: there is no such language here", did_you_mean(language, LANGUAGES))
        )
    given, returned = _known(card.input, "input"), _known(_only_output(card), "output")
    from jinja2 import Environment, StrictUndefined  # only whoever prints lines needs it

    environment = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)  # noqa: S701 — code, not HTML
    text = (Path(__file__).parent / _TEMPLATES[language]).read_text(encoding="utf-8")
    return environment.from_string(text).render(_values(card, given, returned, file))


def _only_output(card: Card) -> TensorInfo | None:
    """A classifier's logits. Raises `UserError` where the file gives something else."""
    if not is_of_classes(card):
        raise UserError(Problem(f"{NO_CLASSES}: {described(card.outputs)}", NO_CLASSES_HINT))
    return card.outputs[0] if card.outputs else None


def _known(info: TensorInfo | None, side: str) -> TensorInfo:
    if info is None:
        raise UserError(Problem(f"the card does not say what the {side} of the file is", "export the file again"))
    if info.dtype not in _CPP:
        raise UserError(
            Problem(f"the {side} of the file is {info.dtype}, and lines are printed for {', '.join(_CPP)} alone")
        )
    return info


def _values(card: Card, given: TensorInfo, returned: TensorInfo, file: str) -> dict[str, Json]:
    preprocessing = Preprocessing.from_json(card.preprocessing)
    scale, offset = preprocessing.scale_and_offset()
    least, most = _RANGES.get(given.dtype, (0, 0))
    return {
        "file": file,
        "edgeopt": card.versions.get("edgeopt", ""),
        "runtime": card.runtime,
        "precision": card.precision,
        "classes_python": json.dumps(list(card.classes), ensure_ascii=False),
        "classes_text": ", ".join(_quoted(name) for name in card.classes),
        "classes_kotlin": ", ".join(_quoted(name).replace("$", "\\$") for name in card.classes),
        **_shape_values(preprocessing),
        "tall_first": _is_tall_first(card.versions.get("pillow", "")),
        "interpolation": preprocessing.interpolation,
        "support": 2.0 if preprocessing.interpolation == "bicubic" else 1.0,
        "ground": (*preprocessing.background, 255),
        "input": given,
        "output": returned,
        "input_shape": "(" + ", ".join(map(str, given.shape)) + ")",
        "takes_pixels": given.holds == "pixels",
        "channels_last": given.layout == "NHWC",
        "quantized_in": given.holds == "values" and given.dtype != "float32",
        "quantized_out": returned.dtype != "float32",
        "least_in": least,
        "most_in": most,
        "bytes_in": 4 if given.dtype == "float32" else 1,
        "type_in": _CPP[given.dtype],
        "type_out": _CPP[returned.dtype],
        "swift_in": _SWIFT[given.dtype],
        "swift_out": _SWIFT[returned.dtype],
        "scales": [float(each) for each in _rounded(scale)],
        "offsets": [float(each) for each in _rounded(offset)],
        "scales_f": ", ".join(f"{each}f" for each in _rounded(scale)),
        "offsets_f": ", ".join(f"{each}f" for each in _rounded(offset)),
        "scales_plain": ", ".join(_rounded(scale)),
        "offsets_plain": ", ".join(_rounded(offset)),
    }


def _shape_values(preprocessing: Preprocessing) -> dict[str, Json]:
    """What becomes of an image's sides and colours."""
    (height, width), (frame_height, frame_width) = preprocessing.size, sides_of(preprocessing.resize)
    crops = preprocessing.fit == "crop"
    brought = {"crop": "Resized and cut", "letterbox": "Resized, with a ground around it,", "stretch": "Resized"}
    red, green, blue = preprocessing.background
    grey = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    return {
        "fit": preprocessing.fit,
        "brought": brought[preprocessing.fit],
        "height": height,
        "width": width,
        "channels": preprocessing.channels,
        "frame_height": frame_height,
        "frame_width": frame_width,
        "bound": "max" if crops else "min",
        "least_height": height if crops else 1,
        "least_width": width if crops else 1,
        "ground_text": ", ".join(map(str, preprocessing.background if preprocessing.channels > 1 else (grey,))),
    }


def _is_tall_first(pillow: str) -> bool:
    """Whether the Pillow that prepared images in training shortens a tall image before it narrows it."""
    major = pillow.partition(".")[0]
    return not major.isdecimal() or int(major) >= _TALL_FIRST_SINCE


def _rounded(values: Sequence[float]) -> list[str]:
    """Numbers of 32 bits, with as many digits as bring each back."""
    return [f"{struct.unpack('f', struct.pack('f', value))[0]:#.9g}" for value in values]


def _quoted(name: str) -> str:
    """A string of Kotlin, Swift and C++; what is not ASCII stands as it is."""
    plain = "".join(character if character.isprintable() else " " for character in name)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
