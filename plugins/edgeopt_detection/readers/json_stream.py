"""A JSON file of any size, read piece by piece: the elements of the lists in its outermost object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from edgeopt.plugins import DataError, Location, Problem, printable

_PIECE = 2**22  # characters read at once
_LONGEST = 2**28  # of one element: a longer one is no annotation
_SPACE = " \t\r\n"


def list_elements(path: Path) -> Iterator[tuple[str, Any]]:
    """The key and value of each element of a list at the top of a JSON object, as they come; of other values, the key
    and the whole value. Never more than a few million characters are held.

    Raises `DataError` with the line for text that is no such JSON, and for a file that cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            yield from _Reader(path, file).members()
    except OSError as error:
        raise DataError(Problem(f"{path} cannot be read: {error.strerror or error}", "check the path")) from error
    except UnicodeDecodeError as error:
        raise DataError(Problem(f"{path} is not UTF-8: {error.reason}", "JSON is written in UTF-8")) from error


class _Reader:
    """A text and a place in it; what was passed is forgotten, but for its lines."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path, self._file = path, file
        self._text, self._place, self._lines = "", 0, 0
        self._decoder = json.JSONDecoder()

    def members(self) -> Iterator[tuple[str, Any]]:
        self._expect("{", "an object with images, annotations and categories")
        while self._peek() != "}":
            key = self._value()
            if not isinstance(key, str):
                raise self._wrong("a name in quotes")
            self._expect(":", 'a ":"')
            if self._peek() == "[":
                self._place += 1
                while self._peek() != "]":
                    yield key, self._value()
                    self._comma("]")
                self._place += 1
            else:
                yield key, self._value()
            self._comma("}")

    def _comma(self, end: str) -> None:
        found = self._peek()
        if found == ",":
            self._place += 1
        elif found != end:
            raise self._wrong(f'"," or "{end}"')

    def _expect(self, sign: str, what: str) -> None:
        if self._peek() != sign:
            raise self._wrong(what)
        self._place += 1

    def _peek(self) -> str:
        while True:
            while self._place < len(self._text) and self._text[self._place] in _SPACE:
                self._place += 1
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more():
                return ""

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._place)
            except (json.JSONDecodeError, RecursionError) as error:
                if len(self._text) - self._place < _LONGEST and self._more():
                    continue
                at = error.pos if isinstance(error, json.JSONDecodeError) else self._place
                raise self._wrong("a value", at) from error
            if end == len(self._text) and self._more():
                continue  # a number may go on
            self._place = end
            return value

    def _more(self) -> bool:
        """Reads on, and forgets what was passed; False at the end of the file."""
        piece = self._file.read(max(_PIECE, len(self._text) - self._place))
        self._lines += self._text.count("\n", 0, self._place)
        self._text, self._place = self._text[self._place :] + piece, 0
        return bool(piece)

    def _wrong(self, expected: str, at: int | None = None) -> DataError:
        place = self._place if at is None else min(at, len(self._text))
        line = self._lines + self._text.count("\n", 0, place) + 1
        found = printable(self._text[place : place + 20].split("\n")[0]) or "the end"
        return DataError(
            Problem(
                f"expected {expected}, and found {found}",
                "the file is cut short or no JSON",
                Location(str(self._path), line),
            )
        )
