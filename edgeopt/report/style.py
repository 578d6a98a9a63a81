"""The style of every page; light, so that a page that draws nothing imports no plots."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup


def style_sheet() -> Markup:
    """The style of every page."""
    return Markup((Path(__file__).parent / "report.css").read_text(encoding="utf-8"))  # noqa: S704 -- our own file
