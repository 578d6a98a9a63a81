"""The folder that a server keeps what its processes are told in."""

from __future__ import annotations

import os
import time
from pathlib import Path

from filelock import FileLock

from edgeopt.serving.own_folder import own_folder


def folder(root: Path, name: str, *, age_s: float) -> Path:
    made = root / f"edgeopt-serve-{name}"
    made.mkdir()
    (made / "lock").touch()
    (made / "0.pickle").write_text("a job")
    os.utime(made, (time.time() - age_s,) * 2)
    return made


def test_it_goes_with_its_server_and_takes_those_of_killed_ones_along(tmp_path: Path) -> None:
    dead, living, young = (
        folder(tmp_path, name, age_s=age_s) for name, age_s in (("dead", 600), ("living", 600), ("young", 1))
    )
    with FileLock(living / "lock"), own_folder(tmp_path) as mine:
        assert mine.parent == tmp_path
        assert not dead.exists()
        assert (living / "0.pickle").exists()
        assert (young / "0.pickle").exists(), "its server may be about to hold it"
        os.utime(mine, (0, 0))
        with own_folder(tmp_path):
            assert mine.exists()
    assert not mine.exists()
