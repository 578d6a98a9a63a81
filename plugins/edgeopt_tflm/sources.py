"""C++ around a file, made from its card: the array, how pixels become its input, labels, arena and operators."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from edgeopt.plugins import Card, Footprint, TensorInfo
from edgeopt_tflm.operators import method

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
    given, taken = card.input, card.footprint
    assert given is not None  # whoever writes sources has completed the card
    assert taken is not None
    guard = f"EDGEOPT_{''.join(each if each.isalnum() else '_' for each in name.upper())}_H_"
    kinds = sorted(taken.operators)
    registered = "\n".join(f"  if (resolver.{method(kind)}() != kTfLiteOk) return kTfLiteError;" for kind in kinds)
    labels = ", ".join(json.dumps(label, ensure_ascii=False) for label in card.classes)
    _, height, width, channels = given.shape
    return f"""\
// Made by edgeopt from the card of a file for microcontrollers: {card.precision}, {card.role}. C++17.
#ifndef {guard}
#define {guard}

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

constexpr std::size_t kModelBytes = {taken.flash_bytes};
extern const unsigned char kModel[kModelBytes];

// As the 64-bit interpreter of tflite-micro counted it with reference kernels. On 32 bits, what it keeps of tensors is
// smaller; kernels of a vendor (CMSIS-NN, ESP-NN) ask for memory of their own besides: ask arena_used_bytes() there.
constexpr std::size_t kArenaBytes = {_rounded(taken)};

constexpr int kHeight = {height}, kWidth = {width}, kChannels = {channels};
{_outputs(card.outputs)}
constexpr int kLabelCount = {len(card.classes)};
inline constexpr const char* kLabels[kLabelCount] = {{{labels}}};

{_input_text(card, given)}
inline TfLiteStatus RegisterOperators(tflite::MicroMutableOpResolver<{len(kinds)}>& resolver) {{
{registered}
  return kTfLiteOk;
}}

#endif  // {guard}
"""


def _rounded(taken: Footprint) -> int:
    return -(-taken.ram_bytes // _ALIGNMENT) * _ALIGNMENT


def _outputs(outputs: Sequence[TensorInfo]) -> str:
    """Scale and zero point of each output that has them."""
    return "\n".join(
        f"constexpr float kOutputScale{number} = {_float(each.scale)};  // of {each.name!r}\n"
        f"constexpr int kOutputZeroPoint{number} = {each.zero_point};"
        for number, each in enumerate(outputs)
        if each.scale is not None
    )


def _input_text(card: Card, given: TensorInfo) -> str:
    """The function that makes the file's input of one channel of a pixel, 0 to 255."""
    mean, std = (cast("list[float]", card.preprocessing[name]) for name in ("mean", "std"))
    constants = (
        f"constexpr float kMean[kChannels] = {{{', '.join(map(_float, mean))}}};  // of pixels as 0..1, "
        f"{card.preprocessing['channel_order']}\n"
        f"constexpr float kStd[kChannels] = {{{', '.join(map(_float, std))}}};\n"
    )
    value = "(static_cast<float>(pixel) / 255.0f - kMean[channel]) / kStd[channel]"
    if given.scale is None:
        return f"{constants}\ninline float ToInput(std::uint8_t pixel, int channel) {{ return {value}; }}\n"
    return (
        f"{constants}constexpr float kInputScale = {_float(given.scale)};\n"
        f"constexpr int kInputZeroPoint = {given.zero_point};\n\n"
        "inline std::int8_t ToInput(std::uint8_t pixel, int channel) {\n"
        f"  const float value = {value};\n"
        "  const int rounded = static_cast<int>(std::nearbyint(value * (1.0f / kInputScale))) + kInputZeroPoint;\n"
        "  return static_cast<std::int8_t>(std::clamp(rounded, -128, 127));\n"
        "}\n"
    )


def _float(value: float | None) -> str:
    """A number with all its digits, as C++ has it."""
    text = repr(float(value or 0.0))
    return f"{text}f"
