"""The page: one HTML text with its own style and script, and the policy that lets a browser run those alone."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from edgeopt._version import __version__
from edgeopt.report.style import style_sheet
from edgeopt.serving.limits import FORMATS, Limits

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Page:
    """The page's HTML, and its Content-Security-Policy."""

    html: str
    policy: str


def make_page(title: str, limits: Limits) -> Page:
    """The page for files of `title`, the names of their runs."""
    style = style_sheet() + _own("page.css")
    script = _own("page.js")
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    html = template.from_string((_HERE / "page.html.j2").read_text(encoding="utf-8")).render(
        title=title,
        style=style,
        script=script,
        version=__version__,
        accept=",".join(f"image/{name.lower()}" for name in FORMATS),
        limits=limits,
    )
    sources = {
        "default-src": "'none'",
        "script-src": _hashed(script),
        "style-src": _hashed(style),
        "img-src": "'self' blob:",
        "media-src": "blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return Page(html, "; ".join(f"{name} {source}" for name, source in sources.items()))


def _own(name: str) -> Markup:
    return Markup((_HERE / name).read_text(encoding="utf-8"))  # noqa: S704 -- our own file


def _hashed(text: str) -> str:
    """An inline text as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
