"""Short texts that change when the thing behind them does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgeopt.arrays import Json

_SOURCES = {".py", ".j2", ".css"}


def digest(value: Json) -> str:
    """SHA-256 of a JSON value, in hex; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parts_digest(digests: Sequence[str]) -> str:
    """That of a file and of those that it cannot be opened without, by the digest of each; of a file alone, its own."""
    return digest(list(digests)) if len(digests) > 1 else digests[0]


def source_digest(folder: Path, without: Iterable[str] = ()) -> str:
    """SHA-256 over a package's source files, or of the one file; `without` names subfolders to leave out."""
    if folder.is_file():
        return file_digest(folder)
    skipped = {folder / name for name in without}
    sources = (file for file in folder.rglob("*") if file.suffix in _SOURCES and file.is_file())
    files = sorted(file for file in sources if not skipped.intersection(file.parents))
    return digest([[file.relative_to(folder).as_posix(), file_digest(file)] for file in files])


def files_fingerprint(root: Path) -> str:
    """Names, sizes and modification times of a file, or of all files below a folder, without reading them."""
    files = [root] if root.is_file() else sorted(file for file in root.rglob("*") if file.is_file())
    stats = ((file, file.stat()) for file in files)
    return digest([[file.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns] for file, stat in stats])


def versions_of(distributions: Iterable[str]) -> dict[str, str]:
    """Installed version of each distribution, "none" where it is not installed."""
    return {name: installed_version(name) or "none" for name in sorted(set(distributions))}


@cache
def installed_version(distribution: str) -> str | None:
    """Installed version of a distribution, None where it is not installed; looked up once, as that
    reads its metadata.
    """
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
