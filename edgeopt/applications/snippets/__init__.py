"""The lines that feed a file, as a card says it, in the language of an app."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from edgeopt.applications.fitting import problems_of_outputs, problems_of_types
from edgeopt.applications.parts import template_of
from edgeopt.applications.snippets.outputs import VALUES_OF, count, cpp_type, float32, rounded, swift_type, thresholds
from edgeopt.arrays import Json, sides_of
from edgeopt.cards.card import Card, TensorInfo
from edgeopt.errors import Problem, UserError, did_you_mean
from edgeopt.plugins.registry import Registry
from edgeopt.preprocessing import Preprocessing

_TEMPLATES = {"kotlin": "kotlin.kt.j2", "swift": "swift.swift.j2", "cpp": "cpp.cpp.j2", "python": "python.py.j2"}
LANGUAGES = tuple(_TEMPLATES)
"""The languages that lines can be printed in."""
_TAKEN = ("float32", "int8", "uint8", "int16")
_RETURNED = (*_TAKEN, "int32", "int64")
_TALL_FIRST_SINCE = 13  # of Pillow
_RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
_BYTES = {"float32": 4, "int16": 2}  # of a number, where they are not one


def feeding_lines(card: Card, language: str, file: str, registry: Registry) -> str:
    """Source text for `file`, the name of the model file.

    Raises `UserError` for a language that there is not, for a task that has no lines in it, and for a card that says
    nothing of its tensors, or has types or outputs that the lines do not know.
    """
    if language not in _TEMPLATES:
        raise UserError(
            Problem(f"--lang {language}: there is no such language here", did_you_mean(language, LANGUAGES))
        )
    problems = [*problems_of_outputs(card, file, registry)]
    problems += problems_of_types(card, "the file", _TAKEN, _RETURNED, "lines are printed for")
    if problems or card.input is None:
        raise UserError(*problems)
    from jinja2 import Environment, StrictUndefined  # only whoever prints lines needs it

    environment = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)  # noqa: S701 — code, not HTML
    values = _values(card, card.input, language, file)
    for part, text in (
        ("geometry", _text(f"geometry.{language}.j2")),
        ("answer", template_of(card, language, registry)),
        ("all", _text(_TEMPLATES[language])),
    ):
        values[part] = environment.from_string(text).render(values)
    return str(values["all"])


def _text(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _values(card: Card, given: TensorInfo, language: str, file: str) -> dict[str, Json | Callable[..., object]]:
    """What templates may name; those of a task's part take `outputs`, `decision`, `geometry` and the functions."""
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
        "outputs": card.outputs,
        "decision": card.decision,
        "json": json.dumps,
        "count": count,
        "float32": float32,
        "thresholds": lambda decision: thresholds(decision, len(card.classes)),
        **VALUES_OF[language],
        "input_shape": "(" + ", ".join(map(str, given.shape)) + ")",
        "takes_pixels": given.holds == "pixels",
        "channels_last": given.layout == "NHWC",
        "quantized_in": given.holds == "values" and given.dtype != "float32",
        "least_in": least,
        "most_in": most,
        "bytes_in": _BYTES.get(given.dtype, 1),
        "type_in": cpp_type(given),
        "swift_in": swift_type(given),
        "scales": [float(each) for each in rounded(scale)],
        "offsets": [float(each) for each in rounded(offset)],
        "scales_f": ", ".join(f"{each}f" for each in rounded(scale)),
        "offsets_f": ", ".join(f"{each}f" for each in rounded(offset)),
        "scales_plain": ", ".join(rounded(scale)),
        "offsets_plain": ", ".join(rounded(offset)),
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


def _quoted(name: str) -> str:
    """A string of Kotlin, Swift and C++; what is not ASCII stands as it is."""
    plain = "".join(character if character.isprintable() else " " for character in name)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
