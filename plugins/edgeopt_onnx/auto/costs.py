"""What operators cost in ONNX Runtime, in float32 and in int8: the recorded costs, and files of measured ones. Light.

`python -m edgeopt_onnx.auto.measure FILE` writes such a file for the machine that it runs on:

```toml
architecture = "x86_64"
processor = "Intel(R) Xeon(R) Processor"
runtime = "onnxruntime 1.31.1"

[costs.pointwise]
float32 = { call_ns = 8028, unit_ns = 0.0151 }
int8 = { call_ns = 15370, unit_ns = 0.0039 }
```

and so on for every kind of operator. A conversion costs the same in both, for one way.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

from edgeopt.files import write_aside
from edgeopt.plugins import Json, Location, Problem, UserError, did_you_mean, digest, key_lines, toml_mistake

Kind: TypeAlias = Literal[
    "pointwise",
    "dense",
    "depthwise",
    "narrow",
    "fully-connected",
    "binary",
    "clip",
    "pool",
    "conversion",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
OPTION = "costs"
_TEXTS = ("architecture", "processor", "runtime")
_SIDES = ("float32", "int8")
_NUMBERS = ("call_ns", "unit_ns")
_HINT = "`python -m edgeopt_onnx.auto.measure FILE` writes one for the machine that it runs on"


class OperatorCost(NamedTuple):
    """Nanoseconds of one call, and of each unit of work: a multiplication of a layer, an element of anything else."""

    call: int
    unit: float

    def of(self, work: float) -> int:
        """Nanoseconds of one call with so much work."""
        return round(self.call + self.unit * work)


@dataclass(frozen=True)
class Costs:
    """The costs of each kind of operator in float32 and in int8, and what they were measured on.

    `architecture` is that of the processor, such as "x86_64"; `runtime` names ONNX Runtime with its version.
    """

    architecture: str
    processor: str
    runtime: str
    kinds: Mapping[Kind, tuple[OperatorCost, OperatorCost]] = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """A text that changes when a cost does."""
        return digest([[kind, [list(cost) for cost in self.kinds[kind]]] for kind in KINDS])

    def to_toml(self) -> str:
        """The file."""
        from tomli_w import dumps  # only where one is written

        costs = {
            kind: {side: dict(zip(_NUMBERS, cost, strict=True)) for side, cost in zip(_SIDES, pair, strict=True)}
            for kind, pair in self.kinds.items()
        }
        return dumps({**{name: getattr(self, name) for name in _TEXTS}, "costs": costs})


X86_VNNI = Costs(
    "x86_64",
    "an EPYC with AVX-512 and VNNI",
    "onnxruntime 1.32",
    {
        "pointwise": (OperatorCost(call=1532, unit=0.0081), OperatorCost(call=3117, unit=0.0022)),
        "dense": (OperatorCost(call=2119, unit=0.0083), OperatorCost(call=2985, unit=0.0022)),
        "depthwise": (OperatorCost(call=2110, unit=0.0179), OperatorCost(call=2972, unit=0.0242)),
        "narrow": (OperatorCost(call=7680, unit=0.0082), OperatorCost(call=57507, unit=0.0055)),
        "fully-connected": (OperatorCost(call=1286, unit=0.0413), OperatorCost(call=3270, unit=0.0129)),
        "binary": (OperatorCost(call=0, unit=0.0199), OperatorCost(call=2145, unit=0.1054)),
        "clip": (OperatorCost(call=0, unit=0.0), OperatorCost(call=1218, unit=0.0255)),
        "pool": (OperatorCost(call=1654, unit=0.0345), OperatorCost(call=850, unit=0.0)),
        "conversion": (OperatorCost(call=7215, unit=0.1991), OperatorCost(call=7215, unit=0.1991)),
    },
)
"""Recorded with one thread on one processor, the median of three measurements: `costs = "x86-vnni"`."""


def read_costs(path: Path) -> Costs:
    """The costs in a file. Raises `UserError` with the line of everything that is wrong."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(Problem(f"{OPTION}: {path} cannot be read: {reason}", _HINT, option=OPTION)) from error
    except tomllib.TOMLDecodeError as error:
        brief, line = toml_mistake(error, text)
        message = f"{OPTION}: this is not TOML: {brief}"
        raise UserError(Problem(message, _HINT, Location(str(path), line), OPTION)) from error
    lines = key_lines(text)

    def wrong(message: str, *key: str, hint: str | None = None) -> Problem:
        prefixes = [key[:length] for length in range(len(key), 0, -1)]
        at = (line for prefix in prefixes for known, line in lines.items() if known[: len(prefix)] == prefix)
        line = next(at, 1)
        return Problem(f"{OPTION}: {message}", hint, Location(str(path), line), OPTION)

    problems = [
        wrong(f"unknown key {name!r}", name, hint=did_you_mean(name, (*_TEXTS, "costs")))
        for name in values
        if name not in (*_TEXTS, "costs")
    ]
    problems += [
        wrong(f"{name} is missing or is no text", name, hint=_HINT)
        for name in _TEXTS
        if not isinstance(values.get(name), str)
    ]
    table = values.get("costs")
    if not isinstance(table, dict):
        problems.append(wrong("there is no table [costs]", "costs", hint=_HINT))
        table = {}
    else:
        problems += [
            wrong(f"unknown kind of operator {kind!r}", "costs", kind, hint=did_you_mean(kind, KINDS))
            for kind in table
            if kind not in KINDS
        ]
        problems += [wrong(message, *key) for message, key in _wrong_costs(table)]
    if problems:
        raise UserError(*problems)
    kinds = {kind: (_cost(table[kind]["float32"]), _cost(table[kind]["int8"])) for kind in KINDS}
    return Costs(values["architecture"], values["processor"], values["runtime"], kinds)


def kept_costs(file: Path, measure: Callable[[], Costs]) -> Costs:
    """The costs in `file`, measured and kept there where it is not yet; of two at once, one waits for the other.

    Raises `UserError` for a file with mistakes.
    """
    from filelock import FileLock  # only where something is measured

    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if not file.is_file():
            write_aside(file, measure().to_toml())
    return read_costs(file)


def _wrong_costs(table: Mapping[str, Json]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What is missing or is no cost, each with its key."""
    for kind in KINDS:
        pair = table.get(kind)
        if not isinstance(pair, dict):
            yield f"there are no costs of {kind!r}", ("costs", kind)
            continue
        for side in _SIDES:
            cost = pair.get(side)
            given = cost if isinstance(cost, dict) else {}
            for number in _NUMBERS:
                value = given.get(number)
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                    said = "is missing" if value is None else f"is {value!r}, and no number of 0 or more"
                    yield f"{number} of {kind!r} in {side} {said}", ("costs", kind, side, number)


def _cost(values: Mapping[str, float]) -> OperatorCost:
    return OperatorCost(round(values["call_ns"]), float(values["unit_ns"]))
