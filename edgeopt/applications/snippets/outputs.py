"""How the outputs of a file are read in the language of an app: expressions for the numbers that they stand for."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence

from edgeopt.arrays import Json
from edgeopt.cards.card import TensorInfo

_CPP = {
    "float32": "float",
    "int8": "std::int8_t",
    "uint8": "std::uint8_t",
    "int16": "std::int16_t",
    "int32": "std::int32_t",
    "int64": "std::int64_t",
}
_SWIFT = {"float32": "Float", "int8": "Int8", "uint8": "UInt8", "int16": "Int16", "int32": "Int32", "int64": "Int64"}
_KOTLIN = {
    "float32": "getFloat()",
    "int8": "get().toInt()",
    "uint8": "get().toInt() and 255",
    "int16": "getShort().toInt()",
    "int32": "getInt()",
    "int64": "getLong()",
}


def cpp_type(info: TensorInfo) -> str:
    """The type of one number in C++."""
    return _CPP[info.dtype]


def swift_type(info: TensorInfo) -> str:
    """The type of one number in Swift."""
    return _SWIFT[info.dtype]


def count(info: TensorInfo) -> int:
    """Numbers of one image."""
    return math.prod(int(side) for side in info.shape[1:])


def thresholds(decision: Mapping[str, Json], classes: int) -> Sequence[float]:
    """The confidence of each label from which on it is told, as a card has it."""
    return list(decision.get("thresholds") or [decision["threshold"]] * classes)


def rounded(values: Sequence[float]) -> list[str]:
    """Numbers of 32 bits, with as many digits as bring each back."""
    return [f"{struct.unpack('f', struct.pack('f', value))[0]:#.9g}" for value in values]


def float32(value: float) -> str:
    """One such number."""
    return rounded([value])[0]


def _python(info: TensorInfo, name: str) -> str:
    if info.scale is None:
        return f"{name}.astype(np.float32)" if info.dtype != "float32" else name
    return f"((np.asarray({name}, np.float32) - {info.zero_point}) * np.float32({info.scale}))"


def _kotlin(info: TensorInfo, name: str) -> str:
    plain = f"{name}.{_KOTLIN[info.dtype]}"
    if info.dtype == "float32":
        return plain
    number = f"({plain}).toFloat()"
    return number if info.scale is None else f"{number}.minus({info.zero_point}) * {info.scale}f"


def _cpp(info: TensorInfo, name: str) -> str:
    return name if info.scale is None else f"({name} - {info.zero_point}) * {info.scale}f"


def _swift(info: TensorInfo, name: str) -> str:
    plain = name if info.dtype == "float32" else f"Float({name})"
    return plain if info.scale is None else f"Float(Int({name}) - {info.zero_point}) * Float({info.scale})"


#: By language, the functions of its templates: `number` is an expression for one number of an output, `numbers`, in
#: Python, for all of them, and `type_of` the type of one.
VALUES_OF: Mapping[str, Mapping[str, Callable[..., str]]] = {
    "python": {"numbers": _python},
    "kotlin": {"number": _kotlin},
    "cpp": {"number": _cpp, "type_of": cpp_type},
    "swift": {"number": _swift, "type_of": swift_type},
}
