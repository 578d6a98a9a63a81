"""The way to a device on which programs can be started."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from edgeopt.errors import Problem


class Link(Protocol):
    """How a program is started on a device, and how a file comes there."""

    def command(self, program: Sequence[str]) -> list[str]:
        """What is started here so that `program` runs there, with its input and output here. It ends with its input."""
        ...

    def push(self, file: Path, target: str) -> subprocess.CompletedProcess[str]:
        """Copies a file there; `target` is an absolute path there. What it says of failures is in `stderr`."""
        ...

    def explain(self, code: int, said: str) -> Problem:
        """Why a program could not be started, or a file not copied: from the exit code and what was said."""
        ...

    def is_lost(self, code: int) -> bool:
        """Whether the connection broke, so that another try may help."""
        ...
