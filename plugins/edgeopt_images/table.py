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
    """

    names: list[str] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("q"))
    changed: array[int] = field(default_factory=lambda: array("q"))
    labels: array[int] = field(default_factory=lambda: array("q"))
    groups: list[str] = field(default_factory=list)

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

    def fingerprint(self) -> str:
        """Paths, sizes and times of the images, and all that the file says of them."""
        return digest(
            [
                self.classes,
                [
                    [name, each.names, list(each.sizes), list(each.changed), list(each.labels), each.groups]
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
        return DataSurvey(counts, self.warnings)

    def load(self) -> RawDataset:
        """The images, decoded when they are asked for."""
        from edgeopt.data.images import labels_of  # numpy and Pillow are heavy
        from edgeopt_images.folder import FolderImages

        images = {
            name: FolderImages(self.root, each.files(), labels_of(each.labels)) for name, each in self.splits.items()
        }
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
        self._seen: dict[str, tuple[int, str, str]] = {}

    def add(self, line: Line) -> None:
        """Takes one line, or notes what is wrong with it."""
        image = line.values[self.options.image_column] or ""
        label = unicodedata.normalize("NFC", printable(line.values[self.options.label_column] or ""))
        split = self._split(line)
        if not image or not label or split is None:
            empty = [what for what, value in (("path of an image", image), ("label", label)) if not value]
            for what in empty:
                self.bad.note(line.number, f"no {what}", "fill it in, or remove the line")
            return
        if "://" in image or "\0" in image:
            hint = "download it, and write its path"
            self.bad.note(line.number, f"{image!r} is not the path of a file on this machine", hint)
            return
        path = os.path.normpath(self.root / image)
        first = self._seen.setdefault(path, (line.number, label, split))
        if first[1] != label:
            what = f"{image} is {label!r} here and {first[1]!r} in line {first[0]}"
            self.bad.note(line.number, what, "an image has one label: remove one of the lines")
        elif first[0] != line.number and first[2] == split:
            self.repeated += 1
        elif (found := self._look(path, image, line.number)) is not None:
            self._take(found, label, split, self._group(line))

    def found(self, warnings: tuple[str, ...]) -> FoundTable:
        """All of them, with the classes in order."""
        names = list(self._places)
        classes = in_order(names)
        order = {name: place for place, name in enumerate(classes)}
        moved = [order[name] for name in names]
        for each in self._splits.values():
            each.labels[:] = array("q", (moved[label] for label in each.labels))
        return FoundTable(self.root, classes, self._splits, warnings)

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

    def _take(self, found: FoundFile, label: str, split: str, group: str) -> None:
        into = self._splits.setdefault(split, TableSplit())
        into.names.append(found.name)
        into.sizes.append(found.size)
        into.changed.append(found.changed)
        into.labels.append(self._places.setdefault(label, len(self._places)))
        if self.options.group_column is not None:
            into.groups.append(group)
