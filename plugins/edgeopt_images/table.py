"""Images that a `.csv` or `.jsonl` file names, one a line. Light: `edgeopt check` asks it, and no image is read."""

from __future__ import annotations

import os
import stat
import unicodedata
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeopt.data.walk import SPLIT_OF_WORD, FoundFile
from edgeopt.files import where_looked
from edgeopt.plugins import DataError, DataSurvey, Problem, RawDataset, digest, printable
from edgeopt_images.class_names import in_order
from edgeopt_images.options import TableOptions
from edgeopt_images.table_lines import BadLines, Line, read_lines


@dataclass(frozen=True)
class TableSplit:
    """The images of one split, column by column: paths as the file writes them, sizes in bytes, times in ns, the
    places of their classes, and their groups where a column names them.

    Where images have any number of labels, `ends` says where those of each end among `labels`.
    """

    names: list[str] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("q"))
    changed: array[int] = field(default_factory=lambda: array("q"))
    labels: array[int] = field(default_factory=lambda: array("q"))
    groups: list[str] = field(default_factory=list)
    ends: array[int] = field(default_factory=lambda: array("q"))

    def columns(self) -> tuple[array[int], ...]:
        """What numbers say of the images; how labels are shared out only where an image has several."""
        return (self.sizes, self.changed, self.labels, *((self.ends,) if self.ends else ()))

    def files(self) -> tuple[FoundFile, ...]:
        """The images' files."""
        return tuple(map(FoundFile, self.names, self.sizes, self.changed))


@dataclass(frozen=True)
class FoundTable:
    """What one look at a file of paths and labels found; paths count from `root`."""

    root: Path
    classes: tuple[str, ...]
    splits: Mapping[str, TableSplit]
    warnings: tuple[str, ...] = ()
    has_several: bool = False

    def fingerprint(self) -> str:
        """Paths, sizes and times of the images, and all that the file says of them."""
        return digest(
            [
                self.classes,
                [
                    [name, each.names, *(list(column) for column in each.columns()), each.groups]
                    for name, each in sorted(self.splits.items())
                ],
            ]
        )

    def survey(self) -> DataSurvey:
        """The classes and counts, as the file has them."""
        counts = {name: dict.fromkeys(self.classes, 0) for name in self.splits}
        for name, each in self.splits.items():
            for label in each.labels:
                counts[name][self.classes[label]] += 1
        said = self.warnings
        if self.has_several:
            images = ", ".join(f"{len(each.names)} images in {name}" for name, each in self.splits.items())
            said = (*said, f"an image has any number of labels, which are what is counted: {images}")
        return DataSurvey(counts, said)

    def load(self) -> RawDataset:
        """The images, decoded when they are asked for."""
        from edgeopt.data.images import labels_of  # numpy and Pillow are heavy
        from edgeopt_images.folder import FolderImages, ManyLabelImages

        images: dict[str, FolderImages | ManyLabelImages] = {}
        for name, each in self.splits.items():
            labels = labels_of(each.labels)
            if self.has_several:
                images[name] = ManyLabelImages(self.root, each.files(), labels, labels_of(each.ends), len(self.classes))
            else:
                images[name] = FolderImages(self.root, each.files(), labels)
        groups = {name: each.groups for name, each in self.splits.items() if each.groups}
        return RawDataset(self.classes, images, groups=groups, warnings=self.warnings)


def find_table(options: TableOptions) -> FoundTable:
    """Reads a file of paths and labels, and looks whether the images are there.

    Raises `DataError` that names every line that cannot be used, unless such are to be skipped. An image that is not
    there is counted then when it would be read, as in a folder.
    """
    root = options.path.parent if options.root is None else options.root
    if not root.is_dir():
        raise DataError(
            Problem(f"{root} is no folder{where_looked(root)}", "root takes the folder of the images", option="root")
        )
    bad = BadLines(options.path)
    collected = _Collected(root, options, bad, skip=options.on_error == "skip")
    for line in read_lines(options, bad):
        collected.add(line)
    warnings = bad.judge(skip=options.on_error == "skip")
    if collected.repeated:
        were = (
            "1 line repeats an earlier one and was"
            if collected.repeated == 1
            else (f"{collected.repeated} lines repeat earlier ones and were")
        )
        warnings.append(f"{were} left out of {printable(str(options.path))}")
    return collected.found(tuple(warnings))


def tasks_of_table(options: TableOptions) -> tuple[str, ...]:
    """What the labels are for."""
    return ("multi-label",) if options.several_labels else ("classification",)


class _Collected:
    """The images of the lines seen so far."""

    def __init__(self, root: Path, options: TableOptions, bad: BadLines, *, skip: bool) -> None:
        self.root = root
        self.options = options
        self.bad = bad
        self.skip = skip
        self.repeated = 0
        self._splits: dict[str, TableSplit] = {}
        self._places: dict[str, int] = {}  # of classes, in the order in which they come
        self._seen: dict[str, tuple[int, tuple[str, ...], str]] = {}

    def add(self, line: Line) -> None:
        """Takes one line, or notes what is wrong with it."""
        image = line.values[self.options.image_column] or ""
        labels = tuple(unicodedata.normalize("NFC", printable(label)) for label in line.labels)
        split, is_labelled = self._split(line), bool(labels) or self.options.several_labels
        if not image or not is_labelled or split is None:
            empty = [what for what, is_there in (("path of an image", image), ("label", is_labelled)) if not is_there]
            for what in empty:
                self.bad.note(line.number, f"no {what}", "fill it in, or remove the line")
            return
        if "://" in image or "\0" in image:
            hint = "download it, and write its path"
            self.bad.note(line.number, f"{image!r} is not the path of a file on this machine", hint)
            return
        path = os.path.normpath(self.root / image)
        first = self._seen.setdefault(path, (line.number, labels, split))
        if set(first[1]) != set(labels):
            here, there = (" and ".join(map(repr, each)) or "without a label" for each in (labels, first[1]))
            what = f"{image} is {here} here and {there} in line {first[0]}"
            hint = "write all of its labels in one line" if self.options.several_labels else "an image has one label"
            self.bad.note(line.number, what, f"{hint}: remove one of the lines")
        elif first[0] != line.number and first[2] == split:
            self.repeated += 1
        elif (found := self._look(path, image, line.number)) is not None:
            self._take(found, labels, split, self._group(line))

    def found(self, warnings: tuple[str, ...]) -> FoundTable:
        """All of them, with the classes in order."""
        names = list(self._places)
        classes = in_order(names)
        order = {name: place for place, name in enumerate(classes)}
        moved = [order[name] for name in names]
        for each in self._splits.values():
            each.labels[:] = array("q", (moved[label] for label in each.labels))
        return FoundTable(self.root, classes, self._splits, warnings, self.options.several_labels)

    def _split(self, line: Line) -> str | None:
        if self.options.split_column is None:
            return "train"
        text = line.values[self.options.split_column] or ""
        split = SPLIT_OF_WORD.get(text.lower())
        if split is None:
            what = f"{text!r} is no split" if text else "no split"
            self.bad.note(line.number, what, f"splits are named {', '.join(SPLIT_OF_WORD)}")
        return split

    def _group(self, line: Line) -> str:
        name = self.options.group_column
        return "" if name is None else printable(line.values[name] or f"line {line.number}")

    def _look(self, path: str, image: str, number: int) -> FoundFile | None:
        try:
            status = os.stat(path)  # noqa: PTH116 - a path for each takes as long as the look
        except (OSError, ValueError) as error:
            if self.skip:
                return FoundFile(image, 0, 0)
            what = getattr(error, "strerror", None) or str(error)
            missing = isinstance(error, FileNotFoundError | NotADirectoryError)
            self.bad.note(
                number,
                f"{path} does not exist" if missing else f"{path} cannot be read: {what}",
                f'paths count from {printable(str(self.root))}; on_error = "skip" goes on without it',
            )
            return None
        if stat.S_ISDIR(status.st_mode):
            self.bad.note(number, f"{path} is a folder", "each line names the file of one image")
            return None
        return FoundFile(image, status.st_size, status.st_mtime_ns)

    def _take(self, found: FoundFile, labels: tuple[str, ...], split: str, group: str) -> None:
        into = self._splits.setdefault(split, TableSplit())
        into.names.append(found.name)
        into.sizes.append(found.size)
        into.changed.append(found.changed)
        into.labels.extend(self._places.setdefault(label, len(self._places)) for label in labels)
        if self.options.several_labels:
            into.ends.append(len(into.labels))
        if self.options.group_column is not None:
            into.groups.append(group)
