"""What one look at a data set found, on its way to other processes of a run. Light: the parent writes it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.data.collector import collector_paused

if TYPE_CHECKING:
    from edgeopt.types import FoundData


def write_found(found: FoundData, file: Path) -> None:
    """Writes what was found. The file is edgeopt's own: reading it back runs what is in it."""
    file.write_bytes(pickle.dumps(found))


def read_found(file: Path) -> FoundData:
    """Reads what `write_found` wrote."""
    with collector_paused():
        found: FoundData = pickle.loads(file.read_bytes())
    return found
