"""Images and masks of a folder, found by their names. Light: `edgeopt check` asks it, and no image is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeopt.data.walk import SPLIT_OF_WORD
from edgeopt.plugins import DataError, DataSurvey, Problem, RawDataset, digest
from edgeopt_segmentation.options import MaskFolderOptions

_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
_NAMED = 10  # of what is wrong, in an error


@dataclass(frozen=True)
class FoundMasks:
    """Where the files of each split are, and what each of them is called."""

    options: MaskFolderOptions
    splits: Mapping[str, tuple[tuple[Path, Path], ...]]

    def fingerprint(self) -> str:
        """Names, sizes and times of all files."""
        files = [file for pairs in self.splits.values() for pair in pairs for file in pair]
        stats = [(file.as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return digest([[list(self.splits), *map(list, stats)]])

    def survey(self) -> DataSurvey | None:
        """Nothing: which classes an image has is known only when its mask is read."""
        return None

    def load(self) -> RawDataset:
        """The images with their masks. Raises `DataError`, naming all of them, for masks that are wrong, unless such
        images are to be skipped.
        """
        from edgeopt_segmentation.folder import MaskedImages, require_masks  # NumPy and Pillow are heavy

        options = self.options
        splits = {
            name: MaskedImages(pairs, options.class_values, options.ignored) for name, pairs in self.splits.items()
        }
        if options.on_error != "skip":
            require_masks(splits)
        return RawDataset(options.class_names, splits)


def find_masks(options: MaskFolderOptions) -> FoundMasks:
    """Looks which images have a mask. Raises `DataError` for images without one and the reverse, naming all."""
    if not options.path.is_dir():
        raise DataError(Problem(f"there is no folder {options.path}", option="path"))
    roots = {
        SPLIT_OF_WORD[folder.name.lower()]: folder
        for folder in sorted(options.path.iterdir())
        if folder.name.lower() in SPLIT_OF_WORD and (folder / options.images).is_dir()
    } or {"train": options.path}
    if "train" not in roots:
        raise DataError(Problem(f"{options.path} has {', '.join(roots)} and no train", option="path"))
    problems: list[Problem] = []
    splits = {name: tuple(_pairs(root, options, problems)) for name, root in roots.items()}
    if problems:
        raise DataError(*problems)
    return FoundMasks(options, splits)


def _pairs(root: Path, options: MaskFolderOptions, problems: list[Problem]) -> Iterator[tuple[Path, Path]]:
    images, masks = (_by_stem(root / name, problems) for name in (options.images, options.masks))
    for here, there, what in ((images, masks, "mask"), (masks, images, "image")):
        alone = [str(here[stem]) for stem in sorted(here.keys() - there.keys())]
        if alone:
            problems.append(Problem(f"without {what}: {_listed(alone)}", f"add the {what}s, or take these files away"))
    for stem in sorted(images.keys() & masks.keys()):
        yield images[stem], masks[stem]


def _by_stem(folder: Path, problems: list[Problem]) -> dict[str, Path]:
    """The files of a folder and those below it, by their paths without the ending."""
    if not folder.is_dir():
        problems.append(Problem(f"there is no folder {folder}", "name it with the options images and masks"))
        return {}
    found: dict[str, Path] = {}
    twice: list[str] = []
    for file in sorted(file for file in folder.rglob("*") if file.suffix.lower() in _IMAGES):
        stem = file.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            twice.append(str(file))
        found[stem] = file
    if twice:
        problems.append(Problem(f"files of one name with several endings: {_listed(twice)}", "leave one of each"))
    return found


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
