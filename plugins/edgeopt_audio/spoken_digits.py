"""Where the recordings of `spoken-digits` are kept, and how they get there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from edgeopt.files import user_cache
from edgeopt.plugins import DataError, Problem, installed_version
from edgeopt_audio.voices import WORDS

LAYOUT = "{class}_{speaker}_{any}.wav"
SYNTHESIZER = "espeakng-loader"
VERSION = 1  # of what `synthesis` writes
_LAST_LINES = 3


def recordings_folder(root: Path | None, speakers: int, takes: int) -> Path:
    """The folder that holds the recordings: found, or filled by the synthesizer.

    They are written aside and renamed, so that it holds all of them or is not there.

    Raises `DataError` when they cannot be made or written.
    """
    name = f"spoken-digits-{VERSION}-{installed_version(SYNTHESIZER)}-{speakers}x{takes}"
    folder = (root or user_cache()) / name
    wanted = len(WORDS) * speakers * takes
    if _count(folder) == wanted:
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as aside:
            made = Path(aside, "made")
            made.mkdir()
            _synthesize(made, speakers, takes)
            _place(made, folder, wanted)
    except OSError as error:
        raise DataError(
            Problem(
                f"the recordings of spoken-digits cannot be written to {folder}: {error.strerror or error}",
                "choose another place with folder",
                option="folder",
            )
        ) from error
    return folder


def _synthesize(folder: Path, speakers: int, takes: int) -> None:
    command = [sys.executable, "-m", "edgeopt_audio.synthesis", str(folder), str(speakers), str(takes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.strip().splitlines()[-_LAST_LINES:]) or f"it ended with {done.returncode}"
        raise DataError(
            Problem(
                f"the synthesizer could not speak the digits: {said}", "pip install --force-reinstall edgeopt[audio]"
            )
        )


def _place(made: Path, folder: Path, wanted: int) -> None:
    """Moves a whole folder into place, unless another process did so meanwhile."""
    if _count(folder) == wanted:
        return
    if folder.exists():
        shutil.rmtree(folder)  # files were taken out of it
    try:
        made.rename(folder)
    except OSError:
        if _count(folder) != wanted:
            raise


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.glob("*.wav")) if folder.is_dir() else 0
