"""Which folders are splits, whatever they are called, and which are classes; light."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeopt.data.walk import SPLIT_OF_WORD
from edgeopt.plugins import DataError, Problem
from edgeopt_images.tree import Folder

EXPECTED = "a folder of images for each class, or train/, val/ and test/ with such folders in each"


@dataclass(frozen=True)
class Arrangement:
    """The folder of each split, and images in folders that belong to none."""

    splits: Mapping[str, Folder]
    left_out: tuple[Folder, ...] = ()


def arrange(tree: Folder, root: Path, splits: bool | None) -> Arrangement:
    """Which folders are splits: those that are called so and hold class folders; without any, all is train.

    `splits` is what the user says of folders that are called so; None where nothing is said.

    Raises `DataError` where the folders could be meant either way, or are not what `splits` says.
    """
    shown = shown_path(root)
    named = {} if splits is False else _named_as_splits(tree)
    beside = tuple(
        folder for folder in tree.full_folders().values() if not any(folder in each for each in named.values())
    )
    if splits and not named:
        raise DataError(
            Problem(
                f"splits = true, and {shown} holds no train/, val/ or test/",
                f"it must hold {EXPECTED}",
                option="splits",
            )
        )
    if not named or (splits is None and _are_classes(named, beside)):
        if splits is None:
            _refuse_inner_splits(tree, root)
        return Arrangement({"train": tree})
    for split, found in named.items():
        if len(found) > 1:
            names = " and ".join(f"{folder.name}/" for folder in found)
            raise DataError(Problem(f"{shown} holds {names}, both for the {split} split", "keep one of them"))
    if beside and splits is None:
        raise DataError(_ambiguous(named, beside, shown))
    chosen = {split: _unwrapped(found[0]) for split, found in named.items()}
    if "train" not in chosen:
        present = next(iter(named.values()))[0]
        raise DataError(
            Problem(
                f"{shown} holds {present.name}/ but no train/",
                f"it must hold {EXPECTED}; where {present.name}/ is a class, set splits = false",
            )
        )
    return Arrangement(chosen, beside)


def _named_as_splits(tree: Folder) -> dict[str, list[Folder]]:
    """Folders that are called as splits are, by split: "Training", or "seg_train" beside "seg_test"."""
    by_rest: dict[tuple[str, ...], dict[str, list[Folder]]] = {}
    for folder in tree.folders.values():
        tokens = [token for token in re.split(r"[\W_]+", folder.name.casefold()) if token]
        words = [token for token in tokens if token in SPLIT_OF_WORD]
        if len(words) == 1:
            rest = tuple(token for token in tokens if token not in SPLIT_OF_WORD)
            by_rest.setdefault(rest, {}).setdefault(SPLIT_OF_WORD[words[0]], []).append(folder)
    if plain := by_rest.pop((), None):
        return _in_order(plain)
    pairs = [each for each in by_rest.values() if "train" in each and len(each) > 1]
    return _in_order(pairs[0]) if len(pairs) == 1 else {}


def _in_order(named: dict[str, list[Folder]]) -> dict[str, list[Folder]]:
    return {split: named[split] for split in ("train", "validation", "test") if split in named}


def _are_classes(named: Mapping[str, list[Folder]], beside: tuple[Folder, ...]) -> bool:
    """Whether one folder that is called as a split is holds images directly, as the class folders beside it do."""
    folders = [folder for found in named.values() for folder in found]
    return bool(beside) and len(folders) == 1 and bool(folders[0].files) and not folders[0].full_folders()


def _ambiguous(named: Mapping[str, list[Folder]], beside: tuple[Folder, ...], shown: str) -> Problem:
    splits = _listed([folder.name for found in named.values() for folder in found])
    others = _listed([folder.name for folder in beside])
    return Problem(
        f"{shown} holds {splits}, which are called as splits are, and {others} with images beside",
        f"where {splits} are classes, set splits = false; where they are splits, set splits = true, which leaves out "
        f"{others}, or move what belongs to a class into its folder",
        option="splits",
    )


def _unwrapped(folder: Folder) -> Folder:
    """The folder itself; or what lies in it, where that is only a folder of its own name, as unpacked archives have."""
    inner = list(folder.folders.values())
    if len(inner) == 1 and not folder.files and inner[0].name.casefold() == folder.name.casefold():
        return _unwrapped(inner[0]) if inner[0].full_folders() and not inner[0].files else folder
    return folder


def _refuse_inner_splits(tree: Folder, root: Path) -> None:
    """Raises where the splits, or the only class's folders, lie one folder deeper than where they are looked for."""
    folders = tree.full_folders()
    only = next(iter(folders.values())) if len(folders) == 1 else None
    if only is not None and not only.files and only.full_folders():
        inside = _listed(list(only.full_folders()))
        raise DataError(
            Problem(
                f"{shown_path(root)} holds one folder, {only.name}/, and {inside} lie in it: that would be one class",
                f'set path = "{(root / only.name).as_posix()}"',
                option="path",
            )
        )
    inner = {name: found for name, folder in folders.items() if len(found := _named_as_splits(folder)) > 1}
    if inner:
        name, found = next(iter(inner.items()))
        words = _listed([folder.name for each in found.values() for folder in each])
        raise DataError(
            Problem(
                f"{_listed(list(inner))} of {shown_path(root)} hold splits of their own: {name}/ has {words}",
                "put the splits above the classes, as in train/CLASS/ and test/CLASS/; or set splits = false to take "
                "all images of a class together",
                option="splits",
            )
        )


def _listed(names: list[str], most: int = 4) -> str:
    shown = [f"{name}/" for name in names[:most]]
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def shown_path(path: Path) -> str:
    """A path for people."""
    return str(path) if path != Path() else "the current folder"
