"""A file of one linear layer that takes its time to open, for a test that breaks a connection meanwhile."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from edgeopt.testing import linear_file


def open_file(path: Path, threads: int) -> Any:
    time.sleep(1)
    return linear_file.open_file(path, threads)
