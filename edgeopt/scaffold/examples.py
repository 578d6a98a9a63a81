"""What `edgeopt new example` writes: the folders of `examples/`, which travel inside the package."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeopt.errors import Problem, StorageError, UserError, did_you_mean
from edgeopt.files import storage_errors
from edgeopt.scaffold.copying import copy_example

#: Files that an example shares with another one, and that lie there: by example, the other's name and its files.
_SHARED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "jetson": {"raspberry-pi": ("answers.py", "box_decoder.py", "feed.py", "service.py")}
}


@dataclass(frozen=True)
class Example:
    """A folder to copy; `summary` is the heading of its README."""

    name: str
    summary: str
    folder: Path


def examples() -> tuple[Example, ...]:
    """All of them by name: inside an installed package, or in the checkout that is installed as editable."""
    installed = Path(__file__).parent / "examples"
    folder = installed if installed.is_dir() else Path(__file__).parents[2] / "examples"
    return tuple(
        Example(readme.parent.name, _heading(readme), readme.parent) for readme in sorted(folder.glob("*/README.md"))
    )


def write_example(name: str, folder: Path) -> Path:
    """Writes an example into a folder of its name below `folder`; returns that folder.

    Raises `UserError` with all names for one that there is not, `StorageError` when the folder exists.
    """
    known = {example.name: example for example in examples()}
    if name not in known:
        hint = did_you_mean(name, known) or f"there are {', '.join(known)}"
        raise UserError(Problem(f"there is no example {name!r}", hint))
    target = folder / name
    if target.exists():
        raise StorageError(f"{target} exists already", hint="name another folder with --out")
    pending = folder / f".{name}.{uuid.uuid4().hex[:8]}"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            copy_example(known[name].folder, pending)
            for other, files in _SHARED.get(name, {}).items():
                for file in files:
                    shutil.copy(known[other].folder / file, pending / file)
            pending.rename(target)
        finally:
            shutil.rmtree(pending, ignore_errors=True)
    return target


def _heading(readme: Path) -> str:
    return readme.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
