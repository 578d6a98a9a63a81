"""What `edgeopt why` is asked for. Light: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WhyRequest:
    """A file of a finished run, and how it is looked at.

    `images` of the validation split go through it, so that no change of a recipe is chosen by the test split. `out`
    takes the results, None for the folder `why` beside the file.
    """

    given: Path
    images: int = 32
    threads: int = 1
    out: Path | None = None
    plugin_files: tuple[Path, ...] = ()
