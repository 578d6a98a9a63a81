"""What one look at the files of boxes found. Light: `edgeopt check` asks it, and no annotation is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt.data.walk import files_below, require_unchanged
from edgeopt.files import where_looked
from edgeopt.plugins import DataError, Options, Problem, RawDataset, did_you_mean, digest
from edgeopt_detection.options import (
    CocoFile,
    CocoOptions,
    HuggingFaceBoxesOptions,
    TfdsBoxesOptions,
    VocOptions,
    YoloOptions,
)
from edgeopt_images.tfds.folder import Folder, kind_of, look


@dataclass(frozen=True)
class FoundBoxFiles:
    """Files by name, size and time, and what reads them: a function of this module and the options."""

    files: tuple[tuple[Path, int, int], ...]
    reads: Callable[[Any], RawDataset]
    options: Options

    def fingerprint(self) -> str:
        """Names, sizes and times of the files."""
        return digest([[each.name, size, changed] for each, size, changed in self.files])

    def survey(self) -> None:
        """Classes stand in the annotations, which are not read for it."""
        return

    def load(self) -> RawDataset:
        """Images and boxes; raises `DataChangedError` for an annotation file that is no longer as it was found."""
        for file, size, changed in self.files:
            if _is_annotation(file.name.lower()):
                require_unchanged(file, size, changed)
        return self.reads(self.options)


def find_coco(options: CocoOptions) -> FoundBoxFiles:
    """Looks at the JSON files and folders of images. Raises `DataError` where one is missing."""
    parts = _parts(options)
    problems = [
        *(_missing(each.annotations, f"{name}.annotations", Path.is_file) for name, each in parts.items()),
        *(_missing(each.images, f"{name}.images", Path.is_dir) for name, each in parts.items()),
    ]
    _raise(problems)
    files = [each.annotations for each in parts.values()]
    folders = {each.images for each in parts.values()}
    return FoundBoxFiles(
        (*map(_stated, files), *(row for each in sorted(folders) for row in _below(each))), _coco, options
    )


def find_yolo(options: YoloOptions) -> FoundBoxFiles:
    """Looks at the folder. Raises `DataError` where it, or its data.yaml, is missing."""
    _raise([_missing(options.path, "path", Path.is_dir)])
    from edgeopt_detection.readers.data_yaml import require_data_yaml

    require_data_yaml(options.path)
    return FoundBoxFiles(tuple(_below(options.path)), _yolo, options)


def find_voc(options: VocOptions) -> FoundBoxFiles:
    """Looks at the folder. Raises `DataError` where it is missing."""
    _raise([_missing(options.path, "path", Path.is_dir)])
    return FoundBoxFiles(tuple(_below(options.path)), _voc, options)


def find_hugging_face(options: HuggingFaceBoxesOptions) -> FoundBoxFiles:
    """Looks at the folder or file. Raises `DataError` where it is missing."""
    _raise([_missing(options.source, "source", Path.exists)])
    rows = _below(options.source) if options.source.is_dir() else [_stated(options.source)]
    return FoundBoxFiles(tuple(rows), _hugging_face, options)


def find_tfds_boxes(options: TfdsBoxesOptions) -> FoundBoxFiles:
    """Looks at the folder and at what it says of itself. Raises `DataError` with all that does not fit."""
    folder = look(options.path, options.split_names)
    problems = [*folder.problems, *_wrong_features(options, folder)]
    if problems:
        raise DataError(*problems)
    return FoundBoxFiles(tuple(_below(options.path)), _tfds, options)


def _wrong_features(options: TfdsBoxesOptions, folder: Folder) -> Iterator[Problem]:
    """Features that are not there, or are of another kind, each with its option."""
    inner = folder.features.get(options.objects_feature, {}).get("sequence", {}).get("feature", {})
    objects = inner.get("featuresDict", {}).get("features", {})
    within = f" of an object in {options.objects_feature!r}"
    asked = [
        ("image_feature", folder.features, "", ("Image",)),
        ("objects_feature", folder.features, "", ("Sequence",)),
        *([("box_feature", objects, within, ("BBoxFeature", "Tensor"))] if objects else []),
        *([("label_feature", objects, within, ("ClassLabel",))] if objects else []),
    ]
    for option, there, where, kinds in asked:
        name = getattr(options, option)
        if name not in there:
            has = f"it has {', '.join(there)}" if there else "it names none"
            yield Problem(
                f"{folder.path} has no feature {name!r}{where}: {has}", did_you_mean(name, there), option=option
            )
        elif (kind := kind_of(there[name])) not in kinds:
            message = f"feature {name!r}{where} of {folder.path} is {kind}, and not {' or '.join(kinds)}"
            yield Problem(message, f"name another feature by {option}", option=option)
        elif option == "objects_feature" and not objects:
            message = f"feature {name!r} of {folder.path} is a sequence of single values, and not of objects"
            yield Problem(message, "objects have a box and a class each", option=option)


def _is_annotation(name: str) -> bool:
    """Whether what is read of a file at once are boxes: images are read when they are asked for."""
    endings = (".json", ".yaml", ".txt", ".xml", ".parquet", ".arrow")
    return name.endswith(endings) or ".tfrecord-" in name or ".array_record-" in name


def _tfds(options: TfdsBoxesOptions) -> RawDataset:
    from edgeopt_detection.readers.tfds import read_tfds_boxes  # NumPy, Pillow and tensorflow_datasets are heavy

    found = find_tfds_boxes(options)
    return read_tfds_boxes(options, look(options.path, options.split_names), found.fingerprint())


def _coco(options: CocoOptions) -> RawDataset:
    from edgeopt_detection.readers.coco import CocoPart, read_coco  # NumPy and Pillow are heavy

    parts = {name: CocoPart(each.annotations, each.images) for name, each in _parts(options).items()}
    return read_coco(parts, skip=options.on_error == "skip")


def _yolo(options: YoloOptions) -> RawDataset:
    from edgeopt_detection.readers.yolo import read_yolo  # as above

    return read_yolo(options.path, skip=options.on_error == "skip")


def _voc(options: VocOptions) -> RawDataset:
    from edgeopt_detection.readers.voc import read_voc  # as above

    return read_voc(options.path, skip=options.on_error == "skip")


def _hugging_face(options: HuggingFaceBoxesOptions) -> RawDataset:
    from edgeopt_detection.readers.columns import read_columns  # as above

    return read_columns(
        options.source,
        form=options.box_form,
        image=options.image_column,
        objects=options.objects_column,
        skip=options.on_error == "skip",
    )


def _parts(options: CocoOptions) -> Mapping[str, CocoFile]:
    given = {"train": options.train, "validation": options.validation, "test": options.test}
    return {name: each for name, each in given.items() if each is not None}


def _missing(path: Path, option: str, is_there: Callable[[Path], bool]) -> Problem | None:
    if is_there(path):
        return None
    what = "is of another kind" if path.exists() else f"does not exist{where_looked(path)}"
    return Problem(f"{path} {what}", "check the path", option=option)


def _raise(problems: list[Problem | None]) -> None:
    if found := [each for each in problems if each is not None]:
        raise DataError(*found)


def _stated(file: Path) -> tuple[Path, int, int]:
    found = file.stat()
    return file, found.st_size, found.st_mtime_ns


def _below(folder: Path) -> list[tuple[Path, int, int]]:
    found = files_below(folder, lambda _: True)
    return [(folder / each.name, each.size, each.changed) for each in found.taken]
