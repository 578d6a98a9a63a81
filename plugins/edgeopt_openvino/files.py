"""What edgeopt writes into OpenVINO's files, an `.xml` with the graph and a `.bin` with the weights beside it."""

from __future__ import annotations

import re
from pathlib import Path

from edgeopt.export.companions import weights_beside
from edgeopt.plugins import file_digest

CARD_KEY = "edgeopt_card"
"""Name of the card's JSON text in the file's `rt_info`: `model.get_rt_info("edgeopt_card")`."""
_IN_QUOTES = str.maketrans({"&": r"\u0026", "<": r"\u003c", "'": r"\u0027"})
"""JSON's own spelling of what XML does not take between single quotes. So a card stays the plain text that it is in all
files that carry one; XML reads the ends of its lines as spaces, which are the same to JSON."""


def add_notes(path: Path, card_json: str) -> None:
    """Write the card and what the weights are into the `rt_info` of an `.xml` file, and take its indentation out, which
    is a seventh of it.
    """
    # the file's own notes are the last; layers have some too
    before, end, after = re.sub(r"\n\t+", "\n", path.read_text(encoding="utf-8")).rpartition("</rt_info>")
    weights = f"<edgeopt_weights_sha256 value='{file_digest(weights_beside(path))}' />"
    card = f"<{CARD_KEY} value='{card_json.translate(_IN_QUOTES)}' />"
    path.write_text(f"{before}{weights}\n{card}\n{end}{after}", encoding="utf-8")
