"""What a killed training goes on from: one file, written aside and renamed after each epoch."""

from __future__ import annotations

import io
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from edgeopt.files import write_aside


def write_checkpoint(file: Path, values: dict[str, Any], fingerprint: str) -> None:
    """Writes plain values and tensors; `fingerprint` says of which training. Raises `StorageError` when it cannot."""
    buffer = io.BytesIO()
    torch.save({**values, "fingerprint": fingerprint}, buffer)
    write_aside(file, buffer.getvalue())


def read_checkpoint(file: Path, fingerprint: str) -> dict[str, Any] | None:
    """What `write_checkpoint` wrote of the same training, or None when it is missing, damaged or another training's."""
    if not file.is_file():
        return None
    try:
        values: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return values if values["fingerprint"] == fingerprint else None
    except (
        OSError,
        EOFError,
        KeyError,
        ValueError,
        RuntimeError,
        UnpicklingError,
    ):  # of damage
        return None
