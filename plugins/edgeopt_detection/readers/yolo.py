"""Boxes of YOLO's folders: `data.yaml`, images, and a text file of shares for each image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgeopt.data.images import open_image, unreadable
from edgeopt.data.walk import files_below
from edgeopt.files import is_file, is_there
from edgeopt.plugins import DataError, Location, Problem, RawDataset
from edgeopt_detection.boxes import Boxes
from edgeopt_detection.readers.checking import GivenBoxes, checked
from edgeopt_detection.readers.data_yaml import EXAMPLE, require_data_yaml
from edgeopt_detection.readers.findings import Findings, Kind
from edgeopt_detection.readers.images import FlatBoxes, empty_images

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_ORIENTATION, _FIRST_TURNED = 0x0112, 5  # of EXIF: from 5 on, an image lies on its side


@dataclass(frozen=True, eq=False)
class ShareBoxImages:
    """Images in files with boxes as shares of the image, so that no image need be opened to read its boxes."""

    files: tuple[Path, ...]
    shares: FlatBoxes

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        return open_image(self.files[index], self.name_of(index))

    def target(self, index: int) -> Boxes:
        """The boxes of image `index` in px; raises `DataError` for an image whose size cannot be read."""
        boxes = self.shares[index]
        if not len(boxes):
            return boxes
        try:
            with Image.open(self.files[index]) as image:
                width, height = image.size
                if image.getexif().get(_ORIENTATION, 1) >= _FIRST_TURNED:
                    width, height = height, width
        except Exception as error:  # whatever a decoder stumbles over, it is about this file
            raise unreadable(self.name_of(index), error) from error
        return Boxes(boxes.corners * np.asarray([width, height] * 2, dtype=np.float32), boxes.classes, boxes.crowd)

    def name_of(self, index: int) -> str:
        """The path of the file."""
        return str(self.files[index])


def read_yolo(folder: Path, *, skip: bool) -> RawDataset:
    """Images and boxes of a folder with `data.yaml`, which names the classes and where each split's images are.

    The boxes of `images/a/b.jpg` stand in `labels/a/b.txt`, or beside it: class, middle x, middle y, width and height
    as shares of the upright image, or a class and a polygon, whose box is taken. Images without a file, or with an
    empty one, have no boxes and are kept.

    Raises `DataError` with everything that is wrong, unless `skip` leaves it out.
    """
    settings, where = _settings(folder)
    classes = _classes(settings, where)
    findings = Findings(skip)
    splits, warnings = {}, []
    for key, split in _SPLITS.items():
        if settings.get(key):
            files = _images(settings[key], folder, settings, where)
            splits[split], empty = _split(files, len(classes), findings)
            warnings += [f"{split}: {each}" for each in empty_images(empty, len(files))]
            warnings += _lonely(files, split)
    if "train" not in splits:
        raise DataError(Problem(f"{where} names no images to train on", f"it needs lines such as {EXAMPLE}"))
    return RawDataset(classes, splits, warnings=(*findings.settle(), *warnings))


def _settings(folder: Path) -> tuple[Mapping[str, Any], Path]:
    import yaml  # comes with the extra `detection`

    found = require_data_yaml(folder)
    try:
        settings = yaml.safe_load(found.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = Location(str(found), mark.line + 1 if mark else None)
        raise DataError(Problem(f"this is no YAML: {getattr(error, 'problem', error)}", EXAMPLE, place)) from error
    if not isinstance(settings, dict):
        raise DataError(Problem(f"{found} is no table of train, val and names", f"it needs lines such as {EXAMPLE}"))
    return settings, found


def _classes(settings: Mapping[str, Any], where: Path) -> tuple[str, ...]:
    names = settings.get("names")
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            gaps = f"names of {where} are numbered {', '.join(map(str, sorted(names, key=str)))[:60]}"
            raise DataError(Problem(gaps, "number them 0, 1, 2, …: the text files name classes by these numbers"))
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(Problem(f"{where} has no names", "names: [cat, dog] names the classes 0 and 1"))
    if wrong := next((name for name in names if not isinstance(name, str | int | float)), None):
        raise DataError(
            Problem(f"{where} has a name that is no text, but a {type(wrong).__name__}", "names: [cat, dog]")
        )
    classes = tuple(str(name) for name in names)
    if twice := sorted({name for name in classes if classes.count(name) > 1}):
        raise DataError(Problem(f"{where} has two classes called {', '.join(twice)}", "give each a name of its own"))
    if isinstance(settings.get("nc"), int) and settings["nc"] != len(classes):
        raise DataError(
            Problem(f"{where} says nc: {settings['nc']} and names {len(classes)} classes", "mend nc or names")
        )
    return classes


def _images(value: Any, folder: Path, settings: Mapping[str, Any], where: Path) -> list[Path]:
    """The images of one split: those below a folder or several, or those that a text file lists."""
    root = Path(str(settings.get("path") or "."))
    bases = [root] if root.is_absolute() else [folder / root, folder]
    files: list[Path] = []
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, str):
            raise DataError(Problem(f"{where} names a {type(each).__name__} where a folder or a list is", EXAMPLE))
        # exports of Roboflow write ../train/images and mean the folder beside data.yaml
        names = [str(each), str(each).removeprefix("../")]
        found = next((path for base in bases for name in names if is_there(path := base / name)), None)
        if found is None:
            raise DataError(Problem(f"{where} names {each}, which is not there", f"it is looked for below {bases[0]}"))
        if found.is_dir():
            below = files_below(found, lambda name: Path(name).suffix.lower() in SUFFIXES)
            files += [found / file.name for file in below.taken]
        else:
            files += [found.parent / line.strip() for line in _text_of(found).splitlines() if line.strip()]
    if not files:
        raise DataError(Problem(f"{value} of {where} holds no images", f"images end in {', '.join(sorted(SUFFIXES))}"))
    return files


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(
            Problem(f"{file} cannot be read: {error.strerror or error}", "check its permissions")
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            Problem(f"{file} lists images, and is not UTF-8: {error.reason}", "save it as UTF-8")
        ) from error


def _labels_of(image: Path) -> Path:
    """Where the boxes of an image stand: below the last folder `images`, `labels` takes its place."""
    parts = list(image.with_suffix(".txt").parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts)


def _lonely(files: list[Path], split: str) -> Iterator[str]:
    """Text files with boxes that no image belongs to."""
    labels = {_labels_of(file) for file in files}
    beside = {each for folder in {label.parent for label in labels} if folder.is_dir() for each in folder.glob("*.txt")}
    lists = {"classes.txt", "train.txt", "val.txt", "test.txt", "obj.txt"}
    if lonely := sorted(each for each in beside - labels if each.name.lower() not in lists):
        yield f"{split}: {len(lonely)} files of boxes have no image, such as {lonely[0]}"


def _split(files: list[Path], classes: int, findings: Findings) -> tuple[ShareBoxImages, int]:
    numbers: list[list[float]] = []
    images: list[int] = []
    labels: list[int] = []
    places: list[tuple[Path, int]] = []
    kept: list[Path] = []
    for file in files:
        if not is_file(file):
            findings.add(Kind.NO_IMAGE, f"{file} is listed and is not there")
            continue
        source = _labels_of(file)
        if source.is_file():
            for line, label, box in _lines(source, classes, findings):
                numbers.append(box)
                images.append(len(kept))
                labels.append(label)
                places.append((source, line))
        kept.append(file)
    given = GivenBoxes(
        np.asarray(numbers, dtype=np.float64).reshape(-1, 4),
        np.asarray(images, dtype=np.int64),
        np.asarray(labels, dtype=np.int64),
        np.zeros(len(labels), dtype=np.bool_),
        np.ones((len(kept), 2)),  # shares stay shares: images are opened when they are asked for
        lambda index: f"{places[index][0]}:{places[index][1]}",
        str(_labels_of(files[0]).parent),
        are_shares=True,
    )
    boxes = checked(given, "normalized-cxcywh", findings)
    return ShareBoxImages(tuple(kept), boxes), boxes.empty


def _lines(source: Path, classes: int, findings: Findings) -> Iterator[tuple[int, int, list[float]]]:
    """Line, class, and middle, width and height of each box of a file that is well formed."""
    for line, text in enumerate(source.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        words = text.split()
        if not words:
            continue
        try:
            label, values = float(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            findings.add(Kind.MALFORMED, f"{source}:{line}: {text[:60]!r} are no numbers")
            continue
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            message = (
                f"{source}:{line}: {len(words)} numbers, and a box has a class and four, a polygon three places or more"
            )
            findings.add(Kind.MALFORMED, message)
            continue
        if not label.is_integer() or not 0 <= label < classes:
            findings.add(Kind.NO_CLASS, f"{source}:{line}: class {words[0]}, and data.yaml names 0 to {classes - 1}")
            continue
        if len(values) > 4:
            x, y = values[0::2], values[1::2]
            values = [(min(x) + max(x)) / 2, (min(y) + max(y)) / 2, max(x) - min(x), max(y) - min(y)]
        yield line, int(label), values
