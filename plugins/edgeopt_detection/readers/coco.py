"""Boxes of COCO's JSON files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.files import is_file
from edgeopt.plugins import DataError, Problem, RawDataset
from edgeopt_detection.readers.checking import GivenBoxes, checked
from edgeopt_detection.readers.findings import Findings, Kind
from edgeopt_detection.readers.images import FileBoxImages, empty_images
from edgeopt_detection.readers.json_stream import list_elements

_MOST_BITS = 1000  # JSON's integers have any length; larger ones are no float


@dataclass(frozen=True)
class CocoPart:
    """One split: its JSON file, and the folder that its names of images start from."""

    annotations: Path
    images: Path


@dataclass
class _Read:
    """What one file holds: images by id, categories by id, and annotations in columns."""

    path: Path
    findings: Findings
    images: dict[Any, tuple[str, float, float]] = field(default_factory=dict)
    categories: dict[Any, str] = field(default_factory=dict)
    ids: list[Any] = field(default_factory=list)
    image_ids: list[Any] = field(default_factory=list)
    category_ids: list[Any] = field(default_factory=list)
    numbers: list[list[float]] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    known: set[Any] = field(default_factory=set)

    def take(self, key: str, value: Any) -> None:
        """Keeps what is needed of one element."""
        if key not in ("images", "annotations", "categories"):
            return
        if not isinstance(value, dict):
            raise DataError(Problem(f"{self.path}: {key} holds {value!r:.40}", "each element is an object with an id"))
        {"images": self._image, "annotations": self._annotation, "categories": self._category}[key](value)

    def _image(self, value: Mapping[str, Any]) -> None:
        number, name = value.get("id"), value.get("file_name")
        if not _is_id(number) or not isinstance(name, str) or not name:
            self.findings.add(Kind.MALFORMED, f"{self.path}: image {number!s:.60} has no id or no file_name")
            return
        if number in self.images:
            self.findings.refuse(
                Problem(
                    f"{self.path}: image id {number} stands there twice, for {self.images[number][0]} and {name}",
                    "annotations find their image by its id: give each an id of its own",
                )
            )
            return
        sides: tuple[Any, ...] = (value.get("width"), value.get("height"))
        if not all(_is_number(each) and each > 0 for each in sides):
            self.findings.add(Kind.NO_SIZE, f"{self.path}: image {number} ({name}): width and height are {sides}")
            return
        self.images[number] = (name, float(value["width"]), float(value["height"]))

    def _category(self, value: Mapping[str, Any]) -> None:
        number, name = value.get("id"), value.get("name")
        if not _is_id(number) or name is None:
            raise DataError(Problem(f"{self.path}: category {value!r:.60}", "each category has an id and a name"))
        if number in self.categories or str(name) in self.categories.values():
            twice = f"id {number}" if number in self.categories else f"name {name!r}"
            self.findings.refuse(
                Problem(f"{self.path}: two categories have the {twice}", "give each an id and a name of its own")
            )
            return
        self.categories[number] = str(name)

    def _annotation(self, value: Mapping[str, Any]) -> None:
        number, box = value.get("id"), value.get("bbox")
        number = f"number {len(self.ids) + 1}" if number is None else number
        where = f"{self.path}: annotation {number!s:.60}"
        ids = {"id": number, "image_id": value.get("image_id"), "category_id": value.get("category_id")}
        if wrong := [name for name, each in ids.items() if not _is_id(each)]:
            self.findings.add(Kind.MALFORMED, f"{where}: {wrong[0]} is {ids[wrong[0]]!r:.60}, no number and no text")
            return
        if number in self.known:
            self.findings.add(Kind.DOUBLED_ID, f"{where}: its id stands there twice")
            return
        self.known.add(number)
        if not isinstance(box, list) or len(box) != 4 or not all(_is_number(each) for each in box):
            self.findings.add(Kind.MALFORMED, f"{where}: bbox is {box!r:.60}, not x, y, width, height")
            return
        self.ids.append(number)
        self.image_ids.append(ids["image_id"])
        self.category_ids.append(ids["category_id"])
        self.numbers.append(box)
        self.crowd.append(bool(value.get("iscrowd", 0)))


def read_coco(parts: Mapping[str, CocoPart], *, skip: bool) -> RawDataset:
    """Images and boxes of each split; classes are the categories in the order of their ids, which may have gaps.

    Files are read piece by piece, whatever their size. Segmentations are passed over; crowd regions are kept as such.
    Images without boxes are kept.

    Raises `DataError` with everything that is wrong, unless `skip` leaves it out.
    """
    findings = Findings(skip)
    read = {}
    for name, part in parts.items():
        read[name] = _Read(part.annotations, findings)
        for key, value in list_elements(part.annotations):
            read[name].take(key, value)
    classes = _classes(read)
    splits, warnings = {}, []
    for name, part in parts.items():
        splits[name], told = _split(read[name], part, list(classes), findings)
        warnings += [f"{name}: {each}" for each in told]
    return RawDataset(tuple(classes.values()), splits, warnings=(*findings.settle(), *warnings))


def _classes(read: Mapping[str, _Read]) -> dict[Any, str]:
    first = read["train"]
    for each in read.values():
        if not each.images or not each.categories:
            what = " and ".join(key for key in ("images", "categories") if not getattr(each, key))
            raise DataError(
                Problem(f"{each.path} has no {what}", "COCO's files hold images, annotations and categories")
            )
        if each.categories != first.categories:
            other = sorted(map(str, set(each.categories.items()) ^ set(first.categories.items())))
            raise DataError(
                Problem(
                    f"{each.path} has other categories than {first.path}: {', '.join(other[:4])}",
                    "every split has the same categories with the same ids",
                )
            )
    return {number: first.categories[number] for number in sorted(first.categories, key=_by_size)}


def _split(read: _Read, part: CocoPart, class_ids: list[Any], findings: Findings) -> tuple[FileBoxImages, list[str]]:
    kept, there = {}, set(_names_below(part.images))
    for number, (name, width, height) in read.images.items():
        if name in there or is_file(part.images / name):
            kept[number] = (name, width, height)
        else:
            findings.add(Kind.NO_IMAGE, f"{read.path}: image {number} ({name}) is not in {part.images}")
    places, labels = ({each: place for place, each in enumerate(ids)} for ids in (kept, class_ids))
    rows = []
    for row, (image, category) in enumerate(zip(read.image_ids, read.category_ids, strict=True)):
        where = f"{read.path}: annotation {read.ids[row]}"
        if image not in read.images:
            findings.add(Kind.NO_ENTRY, f"{where} is of image {image}, which is not among the images")
        elif category not in labels:
            findings.add(Kind.NO_CLASS, f"{where} is of category {category}, which is not among the categories")
        elif image in places:
            rows.append(row)
    boxes = checked(
        GivenBoxes(
            np.asarray([read.numbers[row] for row in rows], dtype=np.float64).reshape(-1, 4),
            np.asarray([places[read.image_ids[row]] for row in rows], dtype=np.int64),
            np.asarray([labels[read.category_ids[row]] for row in rows], dtype=np.int64),
            np.asarray([read.crowd[row] for row in rows], dtype=np.bool_),
            np.asarray([each[1:] for each in kept.values()], dtype=np.float64).reshape(-1, 2),
            lambda index: f"{read.path}: annotation {read.ids[rows[index]]}",
            str(read.path),
        ),
        "xywh",
        findings,
    )
    files = tuple(part.images / name for name, *_ in kept.values())
    strangers = there - {name for name, *_ in read.images.values()}
    told = [f"{len(strangers)} images of {part.images} are not listed, and were left out"] if strangers else []
    return FileBoxImages(files, boxes), [*told, *empty_images(boxes.empty, len(files))]


def _names_below(folder: Path) -> list[str]:
    """The image files directly in a folder; names with folders in them are looked for one by one."""
    suffixes = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
    return [each.name for each in folder.iterdir() if each.suffix.lower() in suffixes] if folder.is_dir() else []


def _is_id(value: Any) -> bool:
    return isinstance(value, str) or (_is_number(value) and not (isinstance(value, float) and math.isnan(value)))


def _is_number(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and value.bit_length() <= _MOST_BITS
    return isinstance(value, float)


def _by_size(value: Any) -> tuple[bool, Any]:
    return isinstance(value, str), value
