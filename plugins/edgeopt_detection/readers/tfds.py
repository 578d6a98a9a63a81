"""Boxes of folders that TensorFlow Datasets prepared: sequences of objects beside each image, as COCO and VOC have them
there. TensorFlow stays out.
"""

from __future__ import annotations

import contextlib
import io
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from edgeopt.files import ARCHIVE_ERRORS, user_cache
from edgeopt.plugins import DataError, Problem, RawDataset, digest, first_line
from edgeopt_detection.options import Form
from edgeopt_detection.readers.checking import GivenBoxes, checked
from edgeopt_detection.readers.findings import Findings, Kind
from edgeopt_detection.readers.images import FlatBoxes, empty_images
from edgeopt_images.tfds.images import RecordImages
from edgeopt_images.tfds.records import Records, features_of, open_records, read_info

if TYPE_CHECKING:
    from edgeopt_detection.boxes import Boxes
    from edgeopt_detection.options import TfdsBoxesOptions
    from edgeopt_images.tfds.folder import Folder

_VERSION = 1
_CROWDS = ("is_crowd", "is_group_of", "is_difficult")  # what COCO, Open Images and VOC call them
_FORMS: Mapping[str, tuple[Form, bool]] = {
    "REL_YXYX": ("normalized-xyxy", True),
    "REL_XYXY": ("normalized-xyxy", False),
    "YXYX": ("xyxy", True),
    "XYXY": ("xyxy", False),
    "XYWH": ("xywh", False),
}
"""TFDS's names of forms: ours, and whether y comes before x."""
_ORIENTATION, _FIRST_TURNED = 0x0112, 5  # of EXIF: from 5 on, an image lies on its side


@dataclass(frozen=True, eq=False)
class RecordBoxImages(RecordImages):
    """Encoded images with their boxes."""

    boxes: FlatBoxes

    def target(self, index: int) -> Boxes:
        """The boxes of image `index`."""
        return self.boxes[index]


@dataclass(frozen=True)
class _Names:
    """What records call an image, and of its objects the boxes, the classes and what marks a crowd, "" for none."""

    image: str
    boxes: str
    classes: str
    crowd: str


def read_tfds_boxes(options: TfdsBoxesOptions, folder: Folder, fingerprint: str) -> RawDataset:
    """Images and boxes of each split, with TFDS's own classes. Objects that TFDS marks as a crowd, a group or difficult
    count as crowd regions. The first reading passes over all records; boxes are kept in the user's cache.

    Raises `DataError` with everything that is wrong, unless it is to be skipped.
    """
    features, files = read_info(options.path, folder.splits)
    objects = features[options.objects_feature].feature
    try:
        classes = tuple(map(str, objects[options.label_feature].names))
    except (AttributeError, TypeError, ValueError) as error:
        message = f"{options.path} names no classes of {options.objects_feature}/{options.label_feature}"
        raise DataError(Problem(message, "copy the folder again, with its .labels.txt")) from error
    crowd = next((name for name in _CROWDS if name in objects), "")
    within = options.objects_feature
    names = _Names(
        options.image_feature,
        f"{within}/{options.box_feature}",
        f"{within}/{options.label_feature}",
        f"{within}/{crowd}" if crowd else "",
    )
    told = getattr(objects[options.box_feature], "bbox_format", None)
    form, y_first = (options.box_form, False) if options.box_form else _FORMS[told.value if told else "REL_YXYX"]
    findings = Findings(options.on_error == "skip")
    splits, warnings = {}, []
    for split, held in files.items():
        records = open_records(held, folder.file_format, options.path)
        key = digest([_VERSION, fingerprint, split, vars(names), form, y_first, len(classes)])
        kept = user_cache() / "tfds-boxes" / f"{key}.npz"
        found = _Found(records, names, len(classes), form, y_first)
        images = _images(found, options, findings, kept)
        splits[split] = images
        warnings += [f"{split}: {each}" for each in empty_images(images.boxes.empty, len(images))]
    return RawDataset(classes, splits, warnings=(*findings.settle(), *warnings))


def _images(found: _Found, options: TfdsBoxesOptions, findings: Findings, kept: Path) -> RecordBoxImages:
    """The images of one split: with the boxes that are kept, or with those of a pass over all records."""
    records, column = found.records, found.names.image
    with contextlib.suppress(OSError, *ARCHIVE_ERRORS), np.load(kept, allow_pickle=False) as read:
        flat = FlatBoxes(*(read[name] for name in ("corners", "classes", "crowd", "starts")))
        return RecordBoxImages(records, read["places"], column, options.window, flat)
    before = findings.count
    for index in range(len(records.file_of)):
        try:
            found.take(index, findings)
        except Exception as error:  # of damaged bytes the decoder says much
            findings.add(Kind.UNREADABLE, f"{records.name_of(index)} cannot be read: {first_line(error)}")
    flat = checked(found.given(str(options.path)), found.form, findings, option="box_form")
    images = RecordBoxImages(records, np.asarray(found.places, np.int64), column, options.window, flat)
    if findings.count == before:
        _keep(kept, images)
    return images


@dataclass(eq=False)
class _Found:
    """What a pass over `records` finds: places of images, their sizes, and the objects of all."""

    records: Records
    names: _Names
    class_count: int
    form: Form
    y_first: bool
    places: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    numbers: list[list[float]] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)  # which object of its image each is

    def take(self, index: int, findings: Findings) -> None:
        """One record; raises whatever is wrong with its image."""
        features, names, where = features_of(self.records.record(index)), self.names, self.records.name_of(index)
        (encoded,) = features[names.image].bytes_list.value
        size = _upright_size(encoded)
        boxes, labels = features[names.boxes].float_list.value, features[names.classes].int64_list.value
        marks = features[names.crowd].int64_list.value if names.crowd else [0] * len(labels)
        if len(boxes) != 4 * len(labels) or len(marks) != len(labels):
            findings.add(Kind.MALFORMED, f"{where} has {len(boxes)} numbers of boxes and {len(labels)} classes")
            return
        for row, label in enumerate(labels):
            if not 0 <= label < self.class_count:
                known = f"none of 0 to {self.class_count - 1}"
                findings.add(Kind.NO_CLASS, f"{where}, object {row} is of class {label}, {known}")
                continue
            self.numbers.append(list(boxes[4 * row : 4 * row + 4]))
            self.images.append(len(self.places))
            self.classes.append(label)
            self.crowd.append(marks[row] > 0)
            self.rows.append(row)
        self.places.append(index)
        self.sizes.append(size)

    def given(self, origin: str) -> GivenBoxes:
        """The objects, to be checked."""
        numbers = np.asarray(self.numbers, dtype=np.float64).reshape(-1, 4)
        return GivenBoxes(
            numbers[:, [1, 0, 3, 2]] if self.y_first else numbers,
            np.asarray(self.images, dtype=np.int64),
            np.asarray(self.classes, dtype=np.int64),
            np.asarray(self.crowd, dtype=np.bool_),
            np.asarray(self.sizes, dtype=np.float64).reshape(-1, 2),
            lambda place: f"{self.records.name_of(self.places[self.images[place]])}, object {self.rows[place]}",
            origin,
        )


def _upright_size(encoded: bytes) -> tuple[int, int]:
    """Width and height of an image as it is seen, px; it is not decoded."""
    with Image.open(io.BytesIO(encoded)) as image:
        width, height = image.size
        if image.getexif().get(_ORIENTATION, 1) >= _FIRST_TURNED:
            return height, width
        return width, height


def _keep(file: Path, images: RecordBoxImages) -> None:
    pending = file.with_name(f".{uuid.uuid4().hex[:8]}.npz")
    try:  # a cache that cannot be written costs time alone
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(pending, places=images.places, **vars(images.boxes))
        pending.replace(file)
    except OSError:
        pending.unlink(missing_ok=True)
