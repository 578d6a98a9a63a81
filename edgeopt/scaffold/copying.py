"""Copies an example. `setup.py` loads this file too, to put the examples into the package: standard library only."""

from __future__ import annotations

import shutil
from pathlib import Path

IGNORE_FILE = ".gitignore"
_MADE_BY_TOOLS = ("__pycache__", "*.egg-info", "build", ".pytest_cache")


def copy_example(source: Path, target: Path) -> None:
    """Copies a folder without what was made in it: what tools leave, and what its own `.gitignore` names."""
    ignore_file = source / IGNORE_FILE
    lines = ignore_file.read_text(encoding="utf-8").splitlines() if ignore_file.is_file() else []
    made = (line.strip().rstrip("/") for line in lines if line.strip())
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*_MADE_BY_TOOLS, *made))
