"""Where YOLO's folders say what they hold. Light: `edgeopt check` asks it."""

from __future__ import annotations

from pathlib import Path

from edgeopt.plugins import DataError, Problem

#: What to write where nothing is said.
EXAMPLE = "train: images/train\\nval: images/val\\nnames: [cat, dog]"


def require_data_yaml(folder: Path) -> Path:
    """The folder's data.yaml. Raises `DataError` where there is none."""
    found = [folder / name for name in ("data.yaml", "data.yml") if (folder / name).is_file()]
    if found:
        return found[0]
    held = ", ".join(sorted(each.name for each in folder.iterdir())[:6]) if folder.is_dir() else "it is no folder"
    raise DataError(
        Problem(
            f"{folder} has no data.yaml: it holds {held or 'nothing'}",
            f"the numbers in the text files are classes without names: write a data.yaml such as {EXAMPLE}",
            option="path",
        )
    )
