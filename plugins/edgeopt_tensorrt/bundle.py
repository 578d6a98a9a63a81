"""A bundle: one `.zip` with the ONNX file and all that is needed to make an engine of it on the device.

The same contents give the same bytes: members are stored as they are, in the order of their names, without a time.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from edgeopt.files import ARCHIVE_ERRORS, require_no_bomb, write_aside

CARD_FILE = "card.json"
README_FILE = "README.txt"
BUILD_SCRIPT = "build_engine.py"
BUILD_SHELL_SCRIPT = "build.sh"
PLUGIN = "EfficientNMS_TRT"
"""The operator of TensorRT's own that a bundle's ONNX file may have; it removes overlapping boxes."""

_NO_TIME = (1980, 1, 1, 0, 0, 0)
_READABLE, _EXECUTABLE = 0o100644 << 16, 0o100755 << 16


def write_bundle(path: Path, members: Mapping[str, bytes]) -> None:
    """Writes a bundle, aside and then renamed into place."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, _NO_TIME)
            entry.create_system = 3  # Unix, whatever system writes it
            entry.external_attr = _EXECUTABLE if name == BUILD_SHELL_SCRIPT else _READABLE
            archive.writestr(entry, members[name])
    write_aside(path, content.getvalue())


def read_bundle(path: Path) -> dict[str, bytes]:
    """The members of a bundle by name.

    Raises `ValueError` when the file is damaged or is no bundle.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            require_no_bomb(archive, path)
            return {name: archive.read(name) for name in archive.namelist()}
    except (OSError, *ARCHIVE_ERRORS) as error:
        raise ValueError(f"{path} is not a bundle of edgeopt: {error}") from error
