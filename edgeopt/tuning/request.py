"""What a study is asked for. Light."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeopt.workers.bucket import Bucket


@dataclass(frozen=True)
class TuneRequest:
    """A recipe with a `[tune]` table, and the `--set` changes of it.

    `trials` and `minutes` take the place of the recipe's. `fresh` forgets the trials of an earlier study in the same
    folder, and keeps what runs have in common. Machines that share no disk share results of stages through the
    `bucket`.
    """

    recipe: Path
    overrides: tuple[str, ...] = ()
    trials: int | None = None
    minutes: float | None = None
    fresh: bool = False
    out: Path = Path("runs")
    plugin_files: tuple[Path, ...] = ()
    bucket: Bucket | None = None
