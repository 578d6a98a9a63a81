"""The card of a file, from beside it or from within: cards are plain text in every format that carries them, so that
no runtime is needed to read one.
"""

from __future__ import annotations

import json
import mmap
import zipfile
from pathlib import Path

from edgeopt.arrays import Json
from edgeopt.cards.card import Card
from edgeopt.errors import Problem, UserError
from edgeopt.files import ARCHIVE_ERRORS, parsed_json, require_no_bomb
from edgeopt.json_values import from_values

CARD = "card.json"
_START = b'{\n  "classes": ['  # how `Card.to_json` begins
_MOST_BYTES = 1 << 24


def card_of(path: Path) -> Card:
    """The card of a model file, or of a card's own file.

    A file's own card counts; the one beside it, which knows more, is taken where it is of the same file.

    Raises `UserError` when there is none, or one that cannot be read.
    """
    if not path.exists():
        raise UserError(Problem(f"{path} is not there", "give a file that edgeopt made, or the card.json beside it"))
    if path.suffix == ".json":
        return _from_text(path)
    beside = path.with_name(CARD)
    inside = _inside(path)
    if path.is_file() and beside.is_file():
        outer = _from_text(beside)
        if inside is None or _same(inside, outer):
            return outer
    if inside is None:
        raise UserError(
            Problem(f"{path} has no card, neither within nor beside it", "give a file that edgeopt run or convert made")
        )
    return inside


def _same(inside: Card, beside: Card) -> bool:
    def said(card: Card) -> list[object]:
        how = [card.classes, card.preprocessing, card.input, card.outputs, card.task, card.decision]
        return [*how, card.runtime, card.precision, card.role]

    return said(inside) == said(beside)


def _from_text(path: Path) -> Card:
    try:
        return _card(parsed_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(Problem(f"{path} is no card that can be read", "export the file again")) from error


def _inside(path: Path) -> Card | None:
    """The card within a file or folder, None where there is none.

    Raises `UserError` for a file that cannot be read, and for a folder with several cards, such as a run's.
    """
    try:
        texts = _texts(path)
        if len(texts) > 1:
            raise UserError(Problem(f"{path} holds {len(texts)} files with a card each", "name one of these files"))
        for text in texts:
            try:
                return _card(json.JSONDecoder().raw_decode(text)[0])
            except (ValueError, RecursionError):  # something that looks like a card, or a part of one
                continue
    except (OSError, *ARCHIVE_ERRORS) as error:
        raise UserError(Problem(f"{path} cannot be read: {error}")) from error
    return None


def card_from_text(text: str) -> Card:
    """The card that `Card.to_json` wrote. Raises `ValueError` for another text."""
    return _card(parsed_json(text))


def _card(values: Json) -> Card:
    if isinstance(values, dict) and "outputs" not in values:
        only = values.get("output")
        values = {name: value for name, value in values.items() if name != "output"}
        values["outputs"] = [] if only is None else [only]
    return from_values(Card, values)


def _texts(path: Path) -> list[str]:
    """What may be a card: texts in a folder or an archive that are named so, and text within a file's bytes."""
    if path.is_dir():
        return [file.read_text(encoding="utf-8") for file in sorted(path.rglob(f"*{CARD}"))]
    if path.stat().st_size == 0:
        return []
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            require_no_bomb(archive, path)
            named = [name for name in archive.namelist() if name.endswith(CARD)]
            return [archive.read(name).decode("utf-8", "replace") for name in named]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(_START)
        return [content[start : start + _MOST_BYTES].decode("utf-8", "replace")] if start >= 0 else []
