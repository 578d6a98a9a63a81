"""Which features of a record are read. Light."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Columns:
    """What the records call an image and its label."""

    image: str
    label: str
