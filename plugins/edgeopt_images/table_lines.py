"""The lines of a `.csv` or `.jsonl` file: what each says of its image, and what is wrong with it. Light."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from edgeopt.files import where_looked
from edgeopt.plugins import DataError, Location, Problem, did_you_mean, printable
from edgeopt_images.options import CsvOptions, JsonlOptions, TableOptions

_SHOWN = 100  # bad lines that are named


@dataclass(frozen=True)
class Line:
    """A line of the file, counted from 1, its texts by the names of their columns (None stands for no value), and its
    labels.
    """

    number: int
    values: Mapping[str, str | None]
    labels: tuple[str, ...]


@dataclass
class BadLines:
    """Collects what is wrong with lines of `file`, each with what to do about it."""

    file: Path
    problems: list[Problem] = field(default_factory=list)

    def note(self, number: int, what: str, hint: str | None = None) -> None:
        """Line `number` cannot be used."""
        self.problems.append(Problem(what, hint, Location(printable(str(self.file)), number)))

    def judge(self, *, skip: bool) -> list[str]:
        """What to say of lines that were left out; raises `DataError` with all of them where none may be."""
        if not self.problems:
            return []
        ordered = sorted(self.problems, key=lambda each: (each.location and each.location.line) or 0)
        if not skip:
            shown = ordered[:_SHOWN]
            if more := len(ordered) - len(shown):
                hint = 'mend them, or set on_error = "skip" to go on without them'
                shown.append(Problem(f"{more} more lines of {self.file} cannot be used", hint))
            raise DataError(*shown)
        lines = "1 line" if len(ordered) == 1 else f"{len(ordered)} lines"
        were = "was" if len(ordered) == 1 else "were"
        first = f"{ordered[0].location}: {ordered[0].message}"
        return [f"{lines} of {printable(str(self.file))} {were} left out; the first: {first}"]


def read_lines(options: TableOptions, bad: BadLines) -> list[Line]:
    """The lines that could be read, in their order; others are noted in `bad`.

    Raises `DataError` for a file that is not there or holds nothing, and for columns that it does not have.
    """
    text = _text_of(options.path)
    reader: Callable[[str, Any, BadLines], Iterator[Line]] = _csv if isinstance(options, CsvOptions) else _jsonl
    lines = list(reader(text, options, bad))
    if not lines and not bad.problems:
        raise DataError(Problem(f"{options.path} holds no lines of images", f"it needs {_EXPECTED}"))
    return lines


_EXPECTED = "a path and a label in each line"


def _text_of(file: Path) -> str:
    if not file.is_file():
        what = "is a folder, not a file" if file.exists() else f"does not exist{where_looked(file)}"
        raise DataError(Problem(f"{file} {what}", f"path takes a file with {_EXPECTED}", option="path"))
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(
            Problem(f"{file} cannot be read: {error.strerror or error}", "check its permissions", option="path")
        ) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = Location(printable(str(file)), data.count(b"\n", 0, error.start) + 1)
        what = f"not UTF-8: byte 0x{data[error.start]:02x}"
        raise DataError(Problem(what, "save the file as UTF-8", place)) from error


def _csv(text: str, options: CsvOptions, bad: BadLines) -> Iterator[Line]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=options.delimiter, strict=True)
    header: list[str] | None = None
    for number, fields in _records(reader, bad):
        if not fields or (header is None and not any(each.strip() for each in fields)):
            continue
        if header is None:
            header = [each.strip() for each in fields]
            _require_columns(header, options, partial(_csv_hint, header=tuple(header), options=options))
        elif len(fields) != len(header):
            bad.note(
                number,
                f"{_fields(len(fields))}, and the header has {len(header)}",
                f"quote a field that holds {options.delimiter!r}",
            )
        else:
            values = {name: value.strip() for name, value in zip(header, fields, strict=True)}
            text = values[options.label_column]
            labels = text.split(options.label_separator) if options.several_labels else [text]
            yield Line(number, values, _labels(labels))


def _fields(count: int) -> str:
    return "1 field" if count == 1 else f"{count} fields"


def _records(reader: Any, bad: BadLines) -> Iterator[tuple[int, list[str]]]:
    """The records of a csv file, each with the number of the line in which it begins."""
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            hint = 'a field that begins with " must end with one, and " within it is written ""'
            bad.note(number, f"not CSV: {error}", hint)
            continue
        yield number, fields


def _csv_hint(name: str, header: tuple[str, ...], options: CsvOptions) -> str:
    if len(header) == 1 and (other := next((each for each in ";\t|," if each in header[0]), "")):
        return f"its first line has no {options.delimiter!r}: set delimiter = {json.dumps(other)}"
    return did_you_mean(name, header) or f"its first line names {', '.join(map(repr, header))}"


def _jsonl(text: str, options: JsonlOptions, bad: BadLines) -> Iterator[Line]:
    wanted = _columns(options)
    lines: list[tuple[int, dict[str, Any]]] = []
    for number, each in enumerate(text.split("\n"), start=1):
        if not each.strip():
            continue
        try:
            value = json.loads(each)
        except (ValueError, RecursionError) as error:
            bad.note(number, f"not JSON: {error}", "a .jsonl file has one object a line")
            continue
        if isinstance(value, dict):
            lines.append((number, value))
        else:
            bad.note(number, f"{_shown(value)} is no object", 'a line is such as {"image": "a.jpg", "label": "cat"}')
    known = dict.fromkeys(name for _, value in lines for name in value)
    if lines:
        _require_columns(
            known, options, lambda name: did_you_mean(name, known) or f"it has {', '.join(map(repr, known))}"
        )
    for number, value in lines:
        labels = value.get(options.label_column)
        if options.several_labels and isinstance(labels, list):
            value = {**value, options.label_column: None}  # noqa: PLW2901 - each of them is looked at below
            labelled = [{options.label_column: label} for label in labels]
        else:
            labelled = [{options.label_column: labels}]
        wrong = [what for name in wanted.values() if (what := _not_text(name, value))]
        wrong += [what for each in labelled if (what := _not_text(options.label_column, each)) and what not in wrong]
        for what in wrong:
            bad.note(number, what, "a text or a whole number stands there")
        if not wrong:
            texts = {name: _as_text(value.get(name)) for name in wanted.values()}
            yield Line(number, texts, _labels([_as_text(each[options.label_column]) or "" for each in labelled]))


def _labels(texts: Iterable[str]) -> tuple[str, ...]:
    """Each label once, without those that are empty."""
    return tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))


def _not_text(name: str, values: Mapping[str, Any]) -> str:
    value = values.get(name)
    if value is None or isinstance(value, str | int):
        return ""
    if isinstance(value, list | dict):
        what = "a list, and an image has one label" if isinstance(value, list) else "an object"
        return f"{name!r} is {what}: {_shown(value)}"
    return f"{name!r} is {_shown(value)}"


def _as_text(value: str | int | None) -> str | None:
    return json.dumps(value) if isinstance(value, bool) else None if value is None else str(value).strip()


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _columns(options: TableOptions) -> dict[str, str]:
    """By the option that names it, each column that is read."""
    return {
        option: name
        for option in ("image_column", "label_column", "split_column", "group_column")
        if (name := getattr(options, option)) is not None
    }


def _require_columns(known: Iterable[str], options: TableOptions, hint: Callable[[str], str]) -> None:
    names = list(known)
    problems = [
        Problem(
            f"{options.path} has no column {name!r}", f"{hint(name)}. Set {option}".replace("?.", "?"), option=option
        )
        for option, name in _columns(options).items()
        if name not in names
    ]
    twice = [
        Problem(f"{options.path} has two columns {name!r}", "give each a name of its own", option=option)
        for option, name in _columns(options).items()
        if names.count(name) > 1
    ]
    if problems or twice:
        raise DataError(*problems, *twice)
