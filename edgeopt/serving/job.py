"""What the server and the process of a file say to one another: the job, and what stands before each image."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from edgeopt.plugins.declarations import ExporterPlugin, TaskPlugin
from edgeopt.plugins.use import Use
from edgeopt.preprocessing import Preprocessing
from edgeopt.recipe.card_task import decided
from edgeopt.tasks.base import Task
from edgeopt.types import Card

HEADER = struct.Struct(">QQ?II")
"""Before each image: the request's number, the image's bytes, whether it is resized and cut already, the number under
which to keep the outputs, and that of the kept ones to compare them with; 0 is none.
"""


@dataclass(frozen=True)
class Wanted:
    """How an image is asked about: whether it `is_prepared`, resized and cut already; the number under which to keep
    the outputs, and that of kept ones to compare them with, 0 for none.
    """

    is_prepared: bool = False
    keep: int = 0
    reference: int = 0


@dataclass(frozen=True)
class AnswerJob:
    """What a process is told: the file with its exporter, its card and its task, what it decodes, and the folder of
    kept outputs, which all processes of a server share.
    """

    exporter: ExporterPlugin
    path: Path
    card: Card
    task_use: Use[TaskPlugin]
    threads: int
    formats: tuple[str, ...]
    pixels: int
    folder: Path

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the file's input."""
        return Preprocessing.from_json(self.card.preprocessing)

    @property
    def task(self) -> Task:
        """What the file is for, as its card says it."""
        return decided(self.task_use, self.card, self.path.name)


def kept_outputs(folder: Path, number: int) -> Path:
    """Where outputs are kept under a number."""
    return folder / f"{number}.npz"
