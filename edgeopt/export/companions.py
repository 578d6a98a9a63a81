"""A model's weights in a file of their own beside it, which must be the one that it was written with.

This module goes to devices as it is: it imports the standard library alone.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def weights_beside(path: Path) -> Path:
    """Where a model's weights are: in a `.bin` that is called as the model is."""
    return path.with_suffix(".bin")


def companions(path: Path) -> tuple[Path, ...]:
    """The same, as `ExporterPlugin.companions` tells it."""
    return (weights_beside(path),)


def require_weights(path: Path, sha256: str | None) -> Path:
    """The weights beside `path`, whose bytes have this SHA-256, hexadecimal; None where nobody knows it.

    Raises `ValueError` where they are missing, damaged, or those of another file.
    """
    weights = weights_beside(path)
    if not weights.is_file():
        raise ValueError(f"{path} has its weights in {weights.name}, which is not beside it")
    if sha256 is not None and _sha256(weights) != sha256:
        raise ValueError(f"{weights} is damaged, or belongs to another file than {path.name}")
    return weights


def _sha256(path: Path) -> str:
    with path.open("rb") as file:  # `edgeopt.fingerprint` does not go to devices
        return hashlib.file_digest(file, "sha256").hexdigest()
