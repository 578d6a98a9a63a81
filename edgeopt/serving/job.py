"""What the server and the process of a file say to one another: the job, and what stands before each image."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.preprocessing import Preprocessing
from edgeopt.types import Card

HEADER = struct.Struct(">QQ?")
"""Before each image: the request's number, the image's bytes, and whether it is resized and cut already."""


@dataclass(frozen=True)
class AnswerJob:
    """What a process is told: the file with its exporter and card, and what it decodes."""

    exporter: ExporterPlugin
    path: Path
    card: Card
    threads: int
    formats: tuple[str, ...]
    pixels: int

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the file's input."""
        return Preprocessing.from_json(self.card.preprocessing)
