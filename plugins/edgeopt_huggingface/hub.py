"""Which commit of a hub data set a name means today. Light: `edgeopt check` asks, and huggingface_hub is not."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from pathlib import Path
from urllib.parse import quote

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PATIENCE_SECONDS = 5
_YES = ("1", "ON", "YES", "TRUE")


def current_commit(source: str, revision: str | None) -> str | None:
    """The commit that `revision` (the main branch where it is None) of OWNER/NAME stands at; None where the hub cannot
    be asked.

    Follows HF_ENDPOINT, HF_HUB_OFFLINE, HF_DATASETS_OFFLINE and HF_TOKEN, as Hugging Face's own libraries do.
    """
    if revision and _COMMIT.fullmatch(revision):
        return revision
    if is_offline():
        return None
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    url = f"{endpoint}/api/datasets/{quote(source)}/revision/{quote(revision or 'main', safe='')}"
    if not url.startswith(("https://", "http://")):
        return None
    token = _token()
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS) as answer:  # noqa: S310 - http(s) as checked
            commit = json.load(answer)["sha"]
    except (OSError, ValueError, KeyError, TypeError):  # no connection, no such data set, no JSON: loading says which
        return None
    return commit if isinstance(commit, str) and _COMMIT.fullmatch(commit) else None


def cached_commit(source: str) -> str | None:
    """The commit that the library's cache holds of a data set, the newest where it holds several: what is loaded
    without a connection.
    """
    folder = _home() / "datasets"
    if "HF_DATASETS_CACHE" in os.environ:
        folder = Path(os.environ["HF_DATASETS_CACHE"])
    try:
        made = [
            (place.stat().st_mtime, place.name)
            for place in (folder / source.replace("/", "___")).glob("*/*/*")  # configuration, version, commit
            if _COMMIT.fullmatch(place.name)
        ]
    except OSError:
        return None
    return max(made)[1] if made else None


def is_offline() -> bool:
    """Whether the environment forbids to ask the hub."""
    return any(os.environ.get(name, "").upper() in _YES for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"))


def _token() -> str:
    if token := os.environ.get("HF_TOKEN", ""):
        return token.strip()
    file = Path(os.environ.get("HF_TOKEN_PATH", _home() / "token"))
    try:
        return file.read_text().strip()
    except (OSError, ValueError):
        return ""


def _home() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("HF_HOME", f"{cache}/huggingface")).expanduser()
