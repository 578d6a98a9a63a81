"""The page: one HTML text with its own style and script, and the policy that lets a browser run those alone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from edgeopt._version import __version__
from edgeopt.report.style import style_sheet
from edgeopt.serving.limits import BROWSER_FORMATS, FORMATS, Limits

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Page:
    """The page's HTML, and its Content-Security-Policy."""

    html: str
    policy: str


def make_page(title: str, limits: Limits) -> Page:
    """The page of the server for files of `title`, the names of their runs: one text with its own style and scripts."""
    style = style_sheet() + own_text("page.css")
    script = own_text("drawing.js") + own_text("page.js") + own_text("served.js")
    html = _rendered(title, limits, FORMATS, static=False, style=style, script=script)
    sources = {"script-src": _hashed(script), "style-src": _hashed(style), "frame-ancestors": "'none'"}
    return Page(html, policy(sources))


def make_static_page(title: str, limits: Limits) -> str:
    """The page of a folder; its scripts and its style are files beside it.

    The scripts may compile WebAssembly, and start threads of code that they have made.
    """
    sources = {
        "script-src": "'self' 'wasm-unsafe-eval'",
        "style-src": "'self'",
        "worker-src": "'self' blob:",
        "img-src": "'self' blob: data:",
    }
    return _rendered(title, limits, BROWSER_FORMATS, static=True, policy=policy(sources))


def policy(sources: Mapping[str, str]) -> str:
    """A Content-Security-Policy: nothing from elsewhere, and of scripts and styles what `sources` say."""
    shared = {
        "default-src": "'none'",
        "img-src": "'self' blob:",
        "media-src": "blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {source}" for name, source in {**shared, **sources}.items())


def _rendered(title: str, limits: Limits, formats: Iterable[str], **values: object) -> str:
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return template.from_string(own_text("page.html.j2")).render(
        title=title,
        version=__version__,
        accept=",".join(f"image/{name.lower()}" for name in formats),
        limits=limits,
        **values,
    )


def own_text(name: str) -> Markup:
    """A file of this folder."""
    return Markup((_HERE / name).read_text(encoding="utf-8"))  # noqa: S704 -- our own file


def _hashed(text: str) -> str:
    """An inline text as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
