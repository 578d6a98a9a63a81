"""The option `weights` of model plugins: a name that the plugin knows, or the path of a checkpoint. Light."""

from __future__ import annotations

from pathlib import Path

from edgeopt.errors import CheckpointError, Problem
from edgeopt.files import where_looked
from edgeopt.fingerprint import files_fingerprint

_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")


def checkpoint_path(weights: str) -> Path | None:
    """The file that `weights` spells, by a slash or a checkpoint's suffix, or None for a name."""
    is_path = "/" in weights or "\\" in weights or weights.endswith(_SUFFIXES)
    return Path(weights).expanduser() if is_path else None


def checkpoint_fingerprint(weights: str) -> str:
    """Size and time of the file that `weights` spells, "" for a name; raises `CheckpointError` when it is not there."""
    path = checkpoint_path(weights)
    if path is None:
        return ""
    require_checkpoint(path)
    return files_fingerprint(path)


def require_checkpoint(path: Path) -> None:
    """Raises `CheckpointError` when `path` is not a file."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else f"does not exist{where_looked(path)}"
        raise CheckpointError(
            Problem(f"checkpoint {path} {what}", "weights takes the path of a file", option="weights")
        )
