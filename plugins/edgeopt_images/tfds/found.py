"""What one look at a folder of TensorFlow Datasets found. Light: `edgeopt check` asks it, and no record is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt.data.walk import FoundFile, files_below, require_unchanged
from edgeopt.files import where_looked
from edgeopt.plugins import DataError, Problem, RawDataset, did_you_mean, digest
from edgeopt_images.options import TfdsOptions
from edgeopt_images.tfds.columns import Columns

INFO, FEATURES = "dataset_info.json", "features.json"
_FORMATS = ("array_record", "tfrecord")
_NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class FoundTfds:
    """The files of one version of a data set, its splits by our names, and the features to read."""

    options: TfdsOptions
    files: tuple[FoundFile, ...]
    file_format: str
    splits: Mapping[str, str]
    columns: Columns

    def fingerprint(self) -> str:
        """Names, sizes and times of the files."""
        return digest([[file.name, file.size, file.changed] for file in self.files])

    def survey(self) -> None:
        """Labels stand in records that are not read for it."""
        return

    def load(self) -> RawDataset:
        """The images, read and decoded when they are asked for.

        Raises `DataChangedError` for a file that is no longer as it was found, and `DataError` for records that cannot
        be used, unless such are to be skipped.
        """
        from edgeopt_images.tfds.reading import read_tfds  # numpy and tensorflow_datasets are heavy

        for file in self.files:
            require_unchanged(self.options.path / file.name, file.size, file.changed)
        return read_tfds(self.options, self.file_format, self.splits, self.columns, self.fingerprint())


def tasks_of_tfds(options: TfdsOptions) -> tuple[str, ...]:
    """What the labels are for."""
    return ("multi-label",) if options.several_labels else ("classification",)


def find_tfds(options: TfdsOptions) -> FoundTfds:
    """Looks at the folder and at what it says of itself; raises `DataError` with all that does not fit."""
    folder = options.path
    if not (folder / INFO).is_file():
        raise DataError(_no_version(folder))
    info, features = _read(folder / INFO), _read(folder / FEATURES)
    file_format = str(info.get("fileFormat") or "tfrecord")
    if file_format not in _FORMATS:
        hint = 'make it with file_format="array_record", or export its images to files of their own'
        raise DataError(Problem(f"{folder} is stored as {file_format}, and not as {' or '.join(_FORMATS)}", hint))
    known = [str(each.get("name")) for each in info.get("splits", [])]
    splits, problems = _splits(options, known)
    columns, more = _columns(options, info, features.get("featuresDict", {}).get("features", {}))
    problems += more
    if problems or columns is None:
        raise DataError(*problems)
    return FoundTfds(options, files_below(folder, lambda _: True).taken, file_format, splits, columns)


def _no_version(folder: Path) -> Problem:
    if not folder.is_dir():
        message = f"{folder} is no folder{where_looked(folder)}"
        return Problem(message, "path takes a folder that TFDS prepared, such as mnist/3.0.1", option="path")
    below = sorted({file.parent for depth in ("*", "*/*") for file in folder.glob(f"{depth}/{INFO}")})
    hint = f"did you mean {below[-1]}?" if below else "prepare the data set with tensorflow_datasets first"
    return Problem(f"{folder} has no {INFO}: it is no version of a data set of TFDS", hint, option="path")


def _read(file: Path) -> dict[str, Any]:
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            Problem(f"{file} cannot be read: {error.strerror or error}", "copy the folder again")
        ) from error
    except ValueError as error:
        raise DataError(Problem(f"{file} is damaged: {error}", "copy the folder again")) from error
    if not isinstance(read, dict):
        raise DataError(Problem(f"{file} is damaged: it is no object", "copy the folder again"))
    return read


def _splits(options: TfdsOptions, known: list[str]) -> tuple[dict[str, str], list[Problem]]:
    """Our names of the splits to use, each with TFDS's; and what was asked for and is not there."""
    asked = {name: getattr(options.split_names, name) for name in _NAMES}
    wanted = {name: name if given is None else given for name, given in asked.items() if given != "none"}
    if asked["validation"] is None and "val" in known and "validation" not in known:
        wanted["validation"] = "val"
    problems = [
        Problem(
            f"{options.path} has no split {theirs!r}: it has {', '.join(known) or 'none'}",
            did_you_mean(theirs, known),
            option="split_names",
        )
        for name, theirs in wanted.items()
        if theirs not in known and (asked[name] is not None or name == "train")
    ]
    return {name: theirs for name, theirs in wanted.items() if theirs in known}, problems


def _columns(
    options: TfdsOptions, info: dict[str, Any], features: dict[str, Any]
) -> tuple[Columns | None, list[Problem]]:
    """The features that hold image and label: as asked for, as the data set says itself, or by what they are."""
    pair = [
        each.get("featureKey", "") for each in info.get("supervisedKeys", {}).get("tuple", {}).get("items", [])
    ] or ["", ""]
    kinds = {name: str(each.get("pythonClassName", "")).rpartition(".")[2] for name, each in features.items()}
    image = options.image_feature or pair[0] or _only(kinds, "Image") or "image"
    label = options.label_feature or pair[-1] or _only(kinds, "ClassLabel") or "label"
    wants = ("ClassLabel", "Sequence") if options.several_labels else ("ClassLabel", "Scalar", "Tensor", "Text")
    problems = []
    for name, option, taken in ((image, "image_feature", ("Image",)), (label, "label_feature", wants)):
        if name not in kinds:
            has = f"it has {', '.join(kinds)}" if kinds else "it names none"
            problems.append(
                Problem(f"{options.path} has no feature {name!r}: {has}", did_you_mean(name, kinds), option=option)
            )
        elif kinds[name] not in taken:
            message = f"feature {name!r} of {options.path} is {kinds[name]}, and not {' or '.join(taken)}"
            hint = f"name another feature by {option}"
            if kinds[name] == "Sequence" and option == "label_feature":
                hint = "set several_labels = true where an image has any number of labels"
            problems.append(Problem(message, hint, option=option))
    return (None if problems else Columns(image, label)), problems


def _only(kinds: Mapping[str, str], kind: str) -> str:
    """The only feature of a kind, "" where there are none or several."""
    found = [name for name, each in kinds.items() if each == kind]
    return found[0] if len(found) == 1 else ""
