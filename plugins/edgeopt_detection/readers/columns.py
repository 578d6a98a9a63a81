"""Boxes in the `objects` column of Hugging Face data sets: Parquet, Arrow, or folders with `metadata.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.data.images import open_image, unreadable
from edgeopt.plugins import DataError, Problem, RawDataset, did_you_mean, first_line
from edgeopt_detection.boxes import Boxes
from edgeopt_detection.options import Form
from edgeopt_detection.readers.checking import GivenBoxes, checked
from edgeopt_detection.readers.findings import Findings, Kind
from edgeopt_detection.readers.images import FlatBoxes, empty_images

_BOXES, _CLASSES = ("bbox", "bboxes", "boxes"), ("category", "categories", "label", "labels", "category_id")
_SPLITS = ("train", "validation", "test")
_SAVED = ("dataset_dict.json", "state.json")  # what `save_to_disk` leaves


@dataclass(frozen=True, eq=False)
class ColumnBoxImages:
    """Images of one split in a column of encoded images, with their boxes."""

    rows: Any
    column: str
    boxes: FlatBoxes
    source: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        value = self.rows[index][self.column]
        if isinstance(value, dict) and value.get("bytes") is not None:
            return open_image(value["bytes"], self.name_of(index))
        if isinstance(value, dict) and value.get("path"):
            return open_image(Path(value["path"]), self.name_of(index))
        raise unreadable(self.name_of(index), ValueError(f"it is {value!r:.40}, not an image"))

    def target(self, index: int) -> Boxes:
        """The boxes of image `index`."""
        return self.boxes[index]

    def name_of(self, index: int) -> str:
        """The place of the image in its split."""
        return f"image {index} of {self.source}"


def read_columns(
    source: Path, *, form: Form = "xywh", image: str = "image", objects: str = "objects", skip: bool
) -> RawDataset:
    """Images and boxes of a local folder, or a Parquet or Arrow file, in the form that the hub has them.

    The column `objects` has for each image a list of boxes (`bbox`) and one of classes (`category`): class labels,
    whole numbers or names. Where a column `width` and one `height` are missing, images are opened for their size.

    Raises `DataError` with everything that is wrong, unless `skip` leaves it out.
    """
    import datasets  # heavy

    found = _loaded(datasets, source)
    findings = Findings(skip)
    unknown = [name for name in found if name not in _SPLITS]
    if "train" not in found:
        raise DataError(Problem(f"{source} has no split train: it has {', '.join(found)}", "name one of them train"))
    names = _columns(found["train"], source, image, objects)
    classes = _classes(datasets, found, objects, names[1])
    splits, warnings = {}, [f"split {name} was left out" for name in unknown]
    for name in _SPLITS:
        if name in found:
            rows = found[name]
            plain = rows.cast_column(image, datasets.Image(decode=False))
            flat = _boxes(plain, f"split {name} of {source}", (image, objects, *names), classes, form, findings)
            splits[name] = ColumnBoxImages(plain, image, flat, f"split {name} of {source}")
            warnings += [f"{name}: {each}" for each in empty_images(flat.empty, len(rows))]
    return RawDataset(tuple(map(str, classes)), splits, warnings=(*findings.settle(), *warnings))


def _loaded(datasets: Any, source: Path) -> Mapping[str, Any]:
    try:
        if source.is_file():
            found = datasets.load_dataset(source.suffix.removeprefix("."), data_files=str(source))
        elif any((source / name).is_file() for name in _SAVED):
            found = datasets.load_from_disk(str(source))
        else:
            found = datasets.load_dataset(str(source))
    except Exception as error:  # the library has no base for what it raises of files
        hint = "it takes Parquet or Arrow files, or images with a metadata.jsonl that has objects"
        raise DataError(Problem(f"{source} cannot be loaded: {first_line(error.__cause__ or error)}", hint)) from error
    return {"train": found} if isinstance(found, datasets.Dataset) else found


def _columns(rows: Any, source: Path, image: str, objects: str) -> tuple[str, str]:
    """What the lists of boxes and of classes are called within the column of objects."""
    problems = [
        Problem(f"{source} has no column {name!r}", did_you_mean(name, rows.column_names), option=option)
        for option, name in (("image_column", image), ("objects_column", objects))
        if name not in rows.column_names
    ]
    if problems:
        raise DataError(*problems)
    feature = rows.features[objects]
    inner = feature if isinstance(feature, dict) else getattr(feature, "feature", None)
    if not isinstance(inner, dict):
        raise DataError(
            Problem(
                f"column {objects!r} holds {type(feature).__name__} values", "it holds bbox and category of each object"
            )
        )
    found = [next((name for name in names if name in inner), None) for names in (_BOXES, _CLASSES)]
    if found[0] is None or found[1] is None:
        raise DataError(
            Problem(
                f"column {objects!r} has {', '.join(inner)}",
                f"it needs one of {', '.join(_BOXES)} and one of {', '.join(_CLASSES)}",
            )
        )
    return found[0], found[1]


def _classes(datasets: Any, found: Mapping[str, Any], objects: str, name: str) -> list[Any]:
    """Names of classes: those of the column, or its distinct values in order."""
    feature = found["train"].features[objects]
    inner = (feature if isinstance(feature, dict) else feature.feature)[name]
    labels = getattr(inner, "feature", inner[0] if isinstance(inner, list) else inner)
    if isinstance(labels, datasets.ClassLabel):
        return list(labels.names)
    values = {
        value for rows in found.values() for each in rows.with_format(None)[objects][:] for value in _listed(each, name)
    }
    return sorted(values - {None}, key=lambda value: (isinstance(value, str), value))


def _listed(objects: Any, name: str) -> list[Any]:
    """One list of an image's objects, whether these stand as a table of lists or as a list of tables."""
    if isinstance(objects, list):
        return [each.get(name) for each in objects]
    return list((objects or {}).get(name) or [])


def _boxes(
    rows: Any, source: str, columns: tuple[str, str, str, str], classes: list[Any], form: Form, findings: Findings
) -> FlatBoxes:
    image, objects, boxes, labels = columns
    known = {value: place for place, value in enumerate(classes)}
    numbers, images, taken, places = [], [], [], []
    every = rows.with_format(None)[objects][:]
    for row, each in enumerate(every):
        given, named = _listed(each, boxes), _listed(each, labels)
        if len(given) != len(named):
            findings.add(Kind.MALFORMED, f"{source}: image {row} has {len(given)} boxes and {len(named)} classes")
            continue
        for place, (box, label) in enumerate(zip(given, named, strict=True)):
            where = f"{source}: image {row}, object {place}"
            number = (
                label
                if isinstance(label, int) and label not in known and 0 <= label < len(classes)
                else known.get(label)
            )
            if box is None or len(box) != 4:
                findings.add(Kind.MALFORMED, f"{where}: {boxes} is {box!r:.60}, not four numbers")
            elif number is None:
                findings.add(Kind.NO_CLASS, f"{where} is of class {label!r}")
            else:
                numbers.append([float("nan") if value is None else value for value in box])
                images.append(row)
                taken.append(number)
                places.append(where)
    given_boxes = GivenBoxes(
        np.asarray(numbers, dtype=np.float64).reshape(-1, 4),
        np.asarray(images, dtype=np.int64),
        np.asarray(taken, dtype=np.int64),
        np.zeros(len(taken), dtype=np.bool_),
        _sizes(rows, image, source),
        lambda index: places[index],
        source,
    )
    return checked(given_boxes, form, findings, option="box_form")


def _sizes(rows: Any, image: str, source: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Width and height of each image in px, float64 (n, 2)."""
    if {"width", "height"} <= set(rows.column_names):
        columns = [np.asarray(rows.with_format(None)[name][:], dtype=np.float64) for name in ("width", "height")]
        return np.column_stack(columns)
    images = ColumnBoxImages(rows, image, FlatBoxes.of_none(len(rows)), source)
    return np.asarray([images[index].size for index in range(len(rows))], dtype=np.float64).reshape(-1, 2)
