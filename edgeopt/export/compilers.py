"""Programs that come with a runtime's package and make its files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path


def run_compiler(command: Sequence[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a program did in `folder`, where it leaves its files, and what it said, whatever its bytes are.

    `environment` has variables to set besides this process's own. Whether it worked is for the caller to see: not all
    of them end with a code that tells.
    """
    settings = {**os.environ, **environment}
    return subprocess.run(
        command, cwd=folder, env=settings, capture_output=True, text=True, errors="replace", check=False
    )
