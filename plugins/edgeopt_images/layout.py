"""Where the images of a folder are; light, so that `edgeopt check` finds what is wrong with it."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt.data.walk import FoundFile, counted_suffixes, files_below, without_broken
from edgeopt.files import where_looked
from edgeopt.plugins import DataError, DataSurvey, Problem, digest, printable
from edgeopt_images.split_folders import EXPECTED, Arrangement, arrange, shown_path
from edgeopt_images.tree import Folder, tree_of

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
_SHOWN = 5  # classes with files that are left out


@dataclass(frozen=True)
class Layout:
    """The image files of each split and class; every split has the same classes, sorted by name.

    `warnings` says what lies there and is not used.
    """

    root: Path
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[tuple[FoundFile, ...], ...]]
    warnings: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Names, sizes and times apart: 50,000 files are pickled so in a twentieth of the time that a walk takes."""
        columns = {split: [tuple(zip(*files, strict=True)) for files in each] for split, each in self.splits.items()}
        return _layout_of, (self.root, self.classes, columns, self.warnings)

    def fingerprint(self) -> str:
        """Names, sizes and modification times of the images; the same wherever the folder stands."""
        files = (file for classes in self.splits.values() for files in classes for file in files)
        return digest([[file.name, file.size, file.changed] for file in files])

    def survey(self) -> DataSurvey:
        """How many images of each class each split has."""
        counts = {
            split: {name: len(files) for name, files in zip(self.classes, classes, strict=True)}
            for split, classes in self.splits.items()
        }
        return DataSurvey(counts, self.warnings)


def _layout_of(
    root: Path,
    classes: tuple[str, ...],
    columns: dict[str, list[tuple[tuple[Any, ...], ...]]],
    warnings: tuple[str, ...],
) -> Layout:
    splits = {split: tuple(tuple(map(FoundFile, *files)) for files in each) for split, each in columns.items()}
    return Layout(root, classes, splits, warnings)


def find_layout(root: Path, splits: bool | None = None, skip_broken: bool = False) -> Layout:
    """The images below `root`; links are followed.

    `splits` says whether folders that are called train, val, test and the like are splits; where it is None, what lies
    in them tells. With `skip_broken`, links that lead nowhere are counted among the images, or told in a warning where
    they could be folders, and raise nothing.

    Raises `DataError` when the folder is missing or holds no class folders, when a class folder holds no images, when
    the split folders do not have the same classes, and for links that lead nowhere.
    """
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else f"does not exist{where_looked(root)}"
        raise DataError(Problem(f"{shown_path(root)} {what}", f"path takes a folder that holds {EXPECTED}"))
    try:
        found = files_below(root, is_image)
    except OSError as error:
        raise DataError(
            Problem(f"{error.filename or root} cannot be read: {error.strerror or error}", "check its permissions")
        ) from error
    found, warnings = without_broken(found, root, is_image, skip=skip_broken)
    arrangement = arrange(tree_of(found), root, splits)
    by_split = {split: _classes(folder, root) for split, folder in arrangement.splits.items()}
    _require_same_classes(arrangement, by_split, root)
    classes = tuple(sorted(by_split["train"]))
    return Layout(
        root,
        classes,
        {split: tuple(by_class[name].images() for name in classes) for split, by_class in by_split.items()},
        tuple(map(printable, (*warnings, *_left_out(arrangement, by_split, root)))),
    )


def is_image(name: str) -> bool:
    """Whether a file is taken for an image, by its name."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 - a path for each name takes as long as the walk


def _classes(folder: Folder, root: Path) -> dict[str, Folder]:
    """The class folders, by the name of their class: composed, as accents can be written in two ways."""
    place = root / folder.place
    if not folder.folders:
        loose = len(folder.files)
        found = f"{loose} images lie in it directly" if loose else "it is empty"
        hint = f"it must hold {EXPECTED}"
        if loose and folder.place:
            hint += f"; without {folder.name}/ the split is drawn from train/; where it is a class, set splits = false"
        raise DataError(Problem(f"{shown_path(place)} holds no class folders: {found}", hint))
    classes: dict[str, Folder] = {}
    for each in folder.folders.values():
        name = printable(unicodedata.normalize("NFC", each.name))
        if name in classes:
            raise DataError(
                Problem(
                    f"{shown_path(place)} holds two folders {name}/, written {classes[name].name!a} and {each.name!a}",
                    "put their images into one of them",
                )
            )
        classes[name] = each
    empty = {name: each for name, each in classes.items() if not each.has_images()}
    if empty:
        names = ", ".join(f"{name}/" for name in empty)
        others = tuple(name for each in empty.values() for name in each.others_below())
        holds = f", which holds other files: {counted_suffixes(others)}" if others else ""
        raise DataError(
            Problem(
                f"no images in {names} of {shown_path(place)}{holds}",
                f"remove it, or add files that end in {', '.join(sorted(SUFFIXES))}",
            )
        )
    return classes


def _require_same_classes(arrangement: Arrangement, found: Mapping[str, Iterable[str]], root: Path) -> None:
    expected = set(found["train"])
    problems = []
    for split, names in found.items():
        differences = [
            f"{what} {', '.join(sorted(classes))}"
            for what, classes in (("lacks", expected - set(names)), ("also has", set(names) - expected))
            if classes
        ]
        if differences:
            place = root / arrangement.splits[split].place
            trained = arrangement.splits["train"].name
            problems.append(
                Problem(
                    f"{shown_path(place)} has other classes than {trained}/: it {' and '.join(differences)}",
                    "every split folder must have the same class folders",
                )
            )
    if problems:
        raise DataError(*problems)


def _left_out(arrangement: Arrangement, found: Mapping[str, Mapping[str, Folder]], root: Path) -> list[str]:
    """What lies there and is not used: files of other kinds, images beside the class folders, folders beside splits."""
    said = []
    folders = [folder for classes in found.values() for folder in classes.values()]
    with_others = [(folder, others) for folder in folders if (others := folder.others_below())]
    for folder, others in with_others[:_SHOWN]:
        said.append(_by_suffix(f"{folder.place}/", others))
    if rest := with_others[_SHOWN:]:
        others = tuple(name for _, each in rest for name in each)
        said.append(_by_suffix(f"{len(rest)} more folders", others))
    for split, folder in arrangement.splits.items():
        if folder.files:
            where = shown_path(root / folder.place)
            said.append(f"{len(folder.files)} images of {split} lie in no class folder of {where} and were left out")
    return said + [
        f"{folder.place}/, with {len(folder.images())} images, lies beside the splits and was left out"
        for folder in arrangement.left_out
    ]


def _by_suffix(where: str, names: tuple[str, ...]) -> str:
    files = "1 file was" if len(names) == 1 else f"{len(names)} files were"
    return f"{files} left out of {where}, whose names do not end as an image's: {counted_suffixes(names)}"
