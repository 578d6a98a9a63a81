"""What a killed training goes on from: one file, written aside and renamed after each epoch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from edgeopt.files import write_aside
from edgeopt.networks.plain_values import UnreadableValuesError, read_plain_values


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
        values = read_plain_values(file)
    except UnreadableValuesError:
        return None
    return values if isinstance(values, dict) and values.get("fingerprint") == fingerprint else None
