"""Where the images of a folder are; light, so that `edgeopt check` finds what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeopt.plugins import DataError, Problem, digest

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
_SPLIT_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}
_EXPECTED = "a folder of images for each class, or train/, val/ and test/ with such folders in each"


@dataclass(frozen=True)
class Layout:
    """The image files of each split and class; every split has the same classes, sorted by name."""

    root: Path
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[tuple[Path, ...], ...]]

    def fingerprint(self) -> str:
        """Names, sizes and modification times of the images; the same wherever the folder stands."""
        files = (file for classes in self.splits.values() for files in classes for file in files)
        stats = ((file.relative_to(self.root).as_posix(), file.stat()) for file in files)
        return digest([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])


def find_layout(root: Path) -> Layout:
    """The images below `root`.

    Raises `DataError` when the folder is missing or holds no class folders, when a class folder holds no images, and
    when the split folders do not have the same classes.
    """
    try:
        return _find(root)
    except OSError as error:
        raise DataError(
            Problem(f"{error.filename or root} cannot be read: {error.strerror or error}", "check its permissions")
        ) from error


def _find(root: Path) -> Layout:
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(Problem(f"{_shown(root)} {what}", f"path takes a folder that holds {_EXPECTED}"))
    folders = {folder.name: folder for folder in _folders(root)}
    named = {split: [folders[name] for name in names if name in folders] for split, names in _SPLIT_FOLDERS.items()}
    for split, found in named.items():
        if len(found) > 1:
            names = " and ".join(f"{folder.name}/" for folder in found)
            raise DataError(Problem(f"{_shown(root)} holds {names}, both for the {split} split", "keep one of them"))
    if named["train"]:
        split_roots = {split: found[0] for split, found in named.items() if found}
    elif any(named.values()):
        present = next(found[0] for found in named.values() if found)
        raise DataError(Problem(f"{_shown(root)} holds {present.name}/ but no train/", f"it must hold {_EXPECTED}"))
    else:
        split_roots = {"train": root}
    found_by_split = {split: _classes(folder) for split, folder in split_roots.items()}
    classes = tuple(found_by_split["train"])
    _require_same_classes(split_roots, found_by_split)
    return Layout(root, classes, {split: tuple(found.values()) for split, found in found_by_split.items()})


def _classes(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Image files by class, sorted by the class's name."""
    classes = {each.name: _images(each) for each in _folders(folder)}
    if not classes:
        loose = sum(_is_image(file.name) for file in folder.iterdir() if file.is_file())
        found = f"{loose} images lie in it directly" if loose else "it is empty"
        raise DataError(Problem(f"{_shown(folder)} holds no class folders: {found}", f"it must hold {_EXPECTED}"))
    empty = [name for name, files in classes.items() if not files]
    if empty:
        names = ", ".join(f"{name}/" for name in empty)
        raise DataError(
            Problem(
                f"no images in {names} of {_shown(folder)}",
                f"remove it, or add files that end in {', '.join(sorted(SUFFIXES))}",
            )
        )
    return classes


def _require_same_classes(roots: Mapping[str, Path], found: Mapping[str, Iterable[str]]) -> None:
    expected = set(found["train"])
    problems = []
    for split, names in found.items():
        differences = [
            f"{what} {', '.join(sorted(classes))}"
            for what, classes in (("lacks", expected - set(names)), ("also has", set(names) - expected))
            if classes
        ]
        if differences:
            problems.append(
                Problem(
                    f"{_shown(roots[split])} has other classes than train/: it {' and '.join(differences)}",
                    "every split folder must have the same class folders",
                )
            )
    if problems:
        raise DataError(*problems)


def _folders(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))


def _images(folder: Path) -> tuple[Path, ...]:
    """Image files at any depth, hidden files and folders left out, sorted."""
    files: list[Path] = []
    for place, subfolders, names in os.walk(folder, onerror=_raise):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files += [Path(place, name) for name in names if _is_image(name)]
    return tuple(sorted(files))


def _is_image(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def _raise(error: OSError) -> None:
    raise error  # os.walk would leave out a folder that it may not read


def _shown(path: Path) -> str:
    return str(path) if path != Path() else "the current folder"
