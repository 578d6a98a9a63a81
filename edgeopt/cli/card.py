"""`edgeopt card`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from edgeopt.applications.snippets import feeding_lines
from edgeopt.cards.reading import CARD, card_of
from edgeopt.plugins.registry import load_registry


def show_card(file: Path, language: str | None, plugin_files: Iterable[Path]) -> None:
    """Prints the card of a file, or the lines that feed the file in a language; `plugin_files` may hold its task.

    Raises `UserError` for a file without a card, for an unknown language, and for a task that has no lines in it.
    """
    card = card_of(file)
    name = file.name if file.name != CARD else "the file beside the card"
    text = feeding_lines(card, language, name, load_registry(plugin_files)) if language else card.to_json()
    sys.stdout.write(text)
