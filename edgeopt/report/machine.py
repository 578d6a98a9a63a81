"""The machine on which figures are taken."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

from edgeopt.cores import usable_cores
from edgeopt.measure.state import memory_bytes, processor
from edgeopt.report.schema import Environment


def this_machine(versions: Mapping[str, str]) -> Environment:
    """This machine, with the `versions` of the packages behind the figures."""
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        machine=platform.machine(),
        processor=processor(),
        cores=usable_cores(),
        memory_bytes=memory_bytes(),
        versions={name: version for name, version in versions.items() if name != "python"},
        commit=_commit(),
    )


def _commit() -> str | None:
    """The commit of edgeopt's own checkout, with "+" where files differ from it; None where it is
    installed otherwise.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if changes.stdout.strip() else "")
