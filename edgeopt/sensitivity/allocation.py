"""A level for each layer, in a file that `edgeopt sensitivity` or a person writes, and that passes read:
`allocation = "FILE"`.

As TOML:

```toml
of = "sparsity"

[layers]
"features.0.0" = 0.5
"classifier.1" = 0.9
```

As CSV, with a column `layer` and one that is named after the kind of level; where there is a column `recommended`, as
in the `sensitivity.csv` of a scan, only the rows with "yes" in it count:

```csv
layer,sparsity
features.0.0,0.5
classifier.1,0.9
```

Layers that a file does not name are left as they are. Light: the plan reads allocations as well.
"""

from __future__ import annotations

import csv
import math
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeopt.arrays import Json
from edgeopt.errors import Location, Problem, UserError, did_you_mean
from edgeopt.files import where_looked
from edgeopt.fingerprint import digest
from edgeopt.toml_lines import key_lines

OPTION = "allocation"
_CHOSEN = "recommended"


@dataclass(frozen=True)
class Allocation:
    """A level for each layer that is named; `of` is the kind of level: "sparsity", "bits" or another probe's name.

    `file` and `lines` are where they were read.
    """

    of: str
    levels: Mapping[str, float]
    file: str = ""
    lines: Mapping[str, int] = field(default_factory=dict, compare=False)

    @property
    def fingerprint(self) -> str:
        """A text that changes when a level does."""
        return digest([self.of, dict(self.levels)])

    def require_layers(self, known: Collection[str]) -> None:
        """Raises `UserError` with the line of every layer that is not among `known`, those that can have a level."""
        problems = [
            Problem(
                f"{OPTION}: the model has no layer {name!r} that could have a level",
                did_you_mean(name, known),
                Location(self.file, self.lines.get(name)),
                option=OPTION,
            )
            for name in self.levels
            if name not in known
        ]
        if problems:
            raise UserError(*problems)

    def to_toml(self, comment: str = "") -> str:
        """The file, with a comment above."""
        from tomli_w import dumps  # only where one is written

        head = "".join(f"# {line}\n" for line in comment.splitlines())
        layers = {name: int(level) if level == int(level) else level for name, level in self.levels.items()}
        return head + dumps({"of": self.of, "layers": layers})


def read_allocation(path: Path, of: str, problem: Callable[[float], str | None]) -> Allocation:
    """The allocation in a `.toml` or a `.csv` file.

    `of` is the kind of level that it must hold; `problem` says of a level why it is impossible, or None.

    Raises `UserError` with the line of everything that is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        failed = f"{error.strerror}{where_looked(path)}" if isinstance(error, OSError) else "it is not UTF-8 text"
        hint = f"`edgeopt sensitivity RECIPE --of {of}` writes one"
        raise UserError(Problem(f"{OPTION}: {path} cannot be read: {failed}", hint, option=OPTION)) from error
    read = _read_csv if path.suffix.lower() == ".csv" else _read_toml
    values, lines = read(text, str(path), of)
    levels, problems = {}, []
    for name, value in values.items():
        reason = None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            reason = f"{value!r} is not a number"
        if reason := reason or problem(value):
            where = Location(str(path), lines.get(name))
            problems.append(Problem(f"{OPTION}: {of} of layer {name!r}: {reason}", None, where, OPTION))
        else:
            levels[name] = float(value)
    if not values:
        problems.append(_wrong(str(path), 1, "no layer is named", "give a level to one at least"))
    if problems:
        raise UserError(*problems)
    return Allocation(of, levels, str(path), lines)


def _read_toml(text: str, file: str, of: str) -> tuple[dict[str, Json], dict[str, int]]:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(_wrong(file, None, f"this is no TOML: {error}")) from error
    lines = key_lines(text)
    example = f'of = "{of}" and a table [layers] with a level for each layer, its name in quotes'
    problems = [
        _wrong(file, lines.get((key,)), f"unknown key {key!r}", did_you_mean(key, ("of", "layers")))
        for key in values
        if key not in ("of", "layers")
    ]
    if not isinstance(values.get("layers"), dict):
        problems.append(_wrong(file, lines.get(("layers",), 1), "there is no table [layers]", f"write {example}"))
    if values.get("of") != of:
        problems.append(_wrong_kind(file, lines.get(("of",), 1), values.get("of"), of))
    if problems:
        raise UserError(*problems)
    layers = values["layers"]
    return layers, {name: lines[key] for name in layers if (key := ("layers", name)) in lines}


def _read_csv(text: str, file: str, of: str) -> tuple[dict[str, Json], dict[str, int]]:
    reader = csv.DictReader(text.splitlines())
    columns = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = columns
    if "layer" not in columns or of not in columns:
        kinds = [name for name in columns if name in ("sparsity", "bits", "quantization")]
        if "layer" in columns and kinds:
            raise UserError(_wrong_kind(file, 1, kinds[0], of))
        raise UserError(_wrong(file, 1, f"the columns are {', '.join(columns) or 'none'}", f"name them layer and {of}"))
    values: dict[str, Json] = {}
    lines: dict[str, int] = {}
    problems = []
    for row in reader:
        name = (row["layer"] or "").strip()
        if _CHOSEN in columns and (row[_CHOSEN] or "").strip() != "yes":
            continue
        if name in values:
            problems.append(_wrong(file, reader.line_num, f"layer {name!r} is named again"))
        values[name], lines[name] = _number(row[of]), reader.line_num
    if problems:
        raise UserError(*problems)
    return values, lines


def _number(text: str | None) -> float | str:
    try:
        return float(text or "")
    except ValueError:
        return text or ""


def _wrong_kind(file: str, line: int | None, found: Json, of: str) -> Problem:
    held = f"it holds levels of {found!r}" if found else "it does not say what its levels are of"
    hint = f'`edgeopt sensitivity RECIPE --of {of}` writes one of {of}; by hand, begin it with of = "{of}"'
    return _wrong(file, line, f"{held}, not of {of!r}", hint)


def _wrong(file: str, line: int | None, message: str, hint: str | None = None) -> Problem:
    return Problem(f"{OPTION}: {message}", hint, Location(file, line), OPTION)
