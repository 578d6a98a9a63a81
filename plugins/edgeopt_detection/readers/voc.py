"""Boxes of Pascal VOC's folders: an XML file for each image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

from edgeopt.data.walk import SPLIT_OF_WORD, files_below
from edgeopt.files import is_file
from edgeopt.plugins import DataError, Location, Problem, RawDataset
from edgeopt_detection.readers.checking import GivenBoxes, checked
from edgeopt_detection.readers.findings import Findings, Kind
from edgeopt_detection.readers.images import FileBoxImages, empty_images
from edgeopt_detection.readers.yolo import SUFFIXES

_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class _Object:
    name: str
    numbers: tuple[float, float, float, float]
    difficult: bool
    place: int


@dataclass(frozen=True)
class _Annotated:
    """One XML file: the image, its size in px, and the objects on it."""

    source: Path
    image: Path
    size: tuple[float, float]
    objects: tuple[_Object, ...]


def read_voc(folder: Path, *, skip: bool) -> RawDataset:
    """Images and boxes of a folder as Pascal VOC has it (JPEGImages, Annotations, and lists in ImageSets/Main where
    there are some), or of folders train, valid and test with an XML file beside each image.

    Classes are the names of objects, sorted. Difficult objects count as crowd regions: nothing is learnt from them, and
    finding them is neither right nor wrong. Px are counted from 1, as VOC does, unless a box begins at 0.

    Raises `DataError` with everything that is wrong, unless `skip` leaves it out.
    """
    if not folder.is_dir():
        raise DataError(
            Problem(f"{folder} is no folder", "path takes a folder with JPEGImages and Annotations", option="path")
        )
    findings = Findings(skip)
    sources = _sources(folder, findings)
    read = {
        name: [each for file in files if (each := _read(file, folder, findings))] for name, files in sources.items()
    }
    classes = tuple(sorted({item.name for files in read.values() for each in files for item in each.objects}))
    if not classes:
        findings.settle()
        raise DataError(Problem(f"{folder} has no XML file with an object", "VOC's files have <object> with <bndbox>"))
    every = [
        number for files in read.values() for each in files for item in each.objects for number in item.numbers[:2]
    ]
    first = 0.0 if 0 in every else 1.0
    splits, warnings = {}, []
    for name, files in read.items():
        splits[name] = _split(files, classes, first, findings, str(folder))
        warnings += [f"{name}: {each}" for each in empty_images(splits[name].boxes.empty, len(files))]
        warnings += _without_annotation(sources[name], name, folder)
    return RawDataset(classes, splits, warnings=(*findings.settle(), *warnings))


def _sources(folder: Path, findings: Findings) -> dict[str, list[Path]]:
    """The XML files of each split."""
    lists, annotations = folder / "ImageSets" / "Main", folder / "Annotations"
    splits = {"train": "train", "val": "validation", "test": "test"}
    found: dict[str, list[Path]] = {}
    for stem, split in splits.items():
        if (lists / f"{stem}.txt").is_file():
            names = [
                line.split()[0]
                for line in (lists / f"{stem}.txt").read_text(encoding="utf-8").splitlines()
                if line.split()
            ]
            found[split] = [annotations / f"{name}.xml" for name in names]
    if not found and annotations.is_dir():
        found["train"] = sorted(annotations.glob("*.xml"))
    if not found:
        for each in sorted(folder.iterdir()):
            word = SPLIT_OF_WORD.get(each.name.lower())
            if each.is_dir() and word is not None:
                found[word] = _xml_below(each)
    if not found:
        found["train"] = _xml_below(folder)
    if not found.get("train"):
        held = ", ".join(sorted(each.name for each in folder.iterdir())[:6]) or "nothing"
        hint = "it takes Annotations/ beside JPEGImages/, or an XML file beside each image"
        raise DataError(Problem(f"{folder} has no XML files to train on: it holds {held}", hint, option="path"))
    for split, files in found.items():
        for lost in [file for file in files if not is_file(file)]:
            findings.add(Kind.NO_ENTRY, f"{lost} is listed for {split} and is not there")
        found[split] = [file for file in files if is_file(file)]
    return found


def _xml_below(folder: Path) -> list[Path]:
    return [folder / file.name for file in files_below(folder, lambda name: name.lower().endswith(".xml")).taken]


def _read(source: Path, folder: Path, findings: Findings) -> _Annotated | None:
    try:
        root = ET.parse(source).getroot()  # noqa: S314 - expat of today refuses files that grow without end
    except ET.ParseError as error:
        findings.refuse(
            Problem(f"this is no XML: {error.msg}", "mend it, or remove it", Location(str(source), error.position[0]))
        )
        return None
    name = (root.findtext("filename") or "").strip()
    image = _image(source, folder, name)
    if image is None:
        findings.add(Kind.NO_IMAGE, f"{source}: its image {name or 'without a name'} is not there")
        return None
    size = tuple(_number(root.findtext(f"size/{side}")) for side in ("width", "height"))
    if not all(side > 0 for side in size):
        findings.add(Kind.NO_SIZE, f"{source}: its size is {size[0]:g} × {size[1]:g} px")
        return None
    objects = []
    for place, item in enumerate(root.iter("object"), start=1):
        label = (item.findtext("name") or "").strip()
        numbers = tuple(_number(item.findtext(f"bndbox/{side}")) for side in _SIDES)
        if not label:
            findings.add(Kind.NO_CLASS, f"{source}: object {place} has no name")
        elif item.find("bndbox") is None:
            findings.add(Kind.MALFORMED, f"{source}: object {place} ({label}) has no bndbox")
        else:
            difficult = (item.findtext("difficult") or "").strip() == "1"
            objects.append(_Object(label, (numbers[0], numbers[1], numbers[2], numbers[3]), difficult, place))
    return _Annotated(source, image, (size[0], size[1]), tuple(objects))


def _image(source: Path, folder: Path, name: str) -> Path | None:
    """The image of an XML file: by the name that it says, or by its own, in JPEGImages or beside it."""
    for base in (folder / "JPEGImages", source.parent):
        if name and is_file(base / name):
            return base / name
        beside = [base / f"{source.stem}{suffix}" for suffix in sorted(SUFFIXES)]
        if found := next((each for each in beside if each.is_file()), None):
            return found
    return None


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _split(
    files: list[_Annotated], classes: tuple[str, ...], first: float, findings: Findings, origin: str
) -> FileBoxImages:
    label_of: Mapping[str, int] = {name: label for label, name in enumerate(classes)}
    rows = [(image, each, item) for image, each in enumerate(files) for item in each.objects]
    numbers = np.asarray([item.numbers for _, _, item in rows], dtype=np.float64).reshape(-1, 4)
    numbers[:, :2] -= first  # of px counted from 1, the first is all of 0 to 1
    given = GivenBoxes(
        numbers,
        np.asarray([image for image, _, _ in rows], dtype=np.int64),
        np.asarray([label_of[item.name] for _, _, item in rows], dtype=np.int64),
        np.asarray([item.difficult for _, _, item in rows], dtype=np.bool_),
        np.asarray([each.size for each in files], dtype=np.float64).reshape(-1, 2),
        lambda index: f"{rows[index][1].source}: object {rows[index][2].place} ({rows[index][2].name})",
        origin,
    )
    return FileBoxImages(tuple(each.image for each in files), checked(given, "xyxy", findings))


def _without_annotation(sources: list[Path], split: str, folder: Path) -> list[str]:
    """Images beside the XML files that none belongs to; in JPEGImages, other splits' images lie as well."""
    if (folder / "JPEGImages").is_dir():
        return []
    known = {file.with_suffix("") for file in sources}
    folders = {file.parent for file in sources}
    images = [each for place in folders for each in place.iterdir() if each.suffix.lower() in SUFFIXES]
    lonely = [each for each in images if each.with_suffix("") not in known]
    return [f"{split}: {len(lonely)} images have no XML file, and were left out"] if lonely else []
