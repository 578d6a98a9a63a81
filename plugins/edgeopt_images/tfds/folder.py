"""A folder that TensorFlow Datasets prepared, as it tells of itself. Light: no record is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from edgeopt.files import where_looked
from edgeopt.plugins import DataError, Problem, did_you_mean
from edgeopt_images.options import TfdsSplitNames

INFO, FEATURES = "dataset_info.json", "features.json"
_FORMATS = ("array_record", "tfrecord")
_NAMES = ("train", "validation", "test")


class _Split(BaseModel):
    name: str


class _Key(BaseModel):
    key: str = Field("", alias="featureKey")


class _Pair(BaseModel):
    items: list[_Key] = []


class _Supervised(BaseModel):
    pair: _Pair = Field(_Pair(), alias="tuple")


class _Info(BaseModel):
    """What is needed of `dataset_info.json`."""

    file_format: str = Field("", alias="fileFormat")
    splits: list[_Split] = []
    supervised: _Supervised = Field(_Supervised(), alias="supervisedKeys")


class _Dict(BaseModel):
    by_name: dict[str, dict[str, Any]] = Field({}, alias="features")


class _Features(BaseModel):
    """What is needed of `features.json`."""

    features: _Dict = Field(_Dict(), alias="featuresDict")


_Said = TypeVar("_Said", _Info, _Features)


@dataclass(frozen=True)
class Folder:
    """One version of a data set: how its records are stored, its splits by our names, each with TFDS's, what it says of
    its features by their names, and which of them it takes for training. `problems` are splits that were asked for and
    are not there.
    """

    path: Path
    file_format: str
    splits: Mapping[str, str]
    features: Mapping[str, Any]
    supervised: tuple[str, ...]
    problems: tuple[Problem, ...]


def look(path: Path, split_names: TfdsSplitNames) -> Folder:
    """What a folder says of itself; raises `DataError` where it is no version of a data set, or stored otherwise."""
    if not (path / INFO).is_file():
        raise DataError(_no_version(path))
    info, features = _read(path / INFO, _Info), _read(path / FEATURES, _Features)
    file_format = info.file_format or "tfrecord"
    if file_format not in _FORMATS:
        hint = 'make it with file_format="array_record", or export its images to files of their own'
        raise DataError(Problem(f"{path} is stored as {file_format}, and not as {' or '.join(_FORMATS)}", hint))
    splits, problems = _splits(path, split_names, [each.name for each in info.splits])
    supervised = tuple(each.key for each in info.supervised.pair.items)
    return Folder(path, file_format, splits, features.features.by_name, supervised, tuple(problems))


def kind_of(feature: Mapping[str, Any]) -> str:
    """What a feature is, such as "Image"."""
    return str(feature.get("pythonClassName", "")).rpartition(".")[2]


def _no_version(folder: Path) -> Problem:
    if not folder.is_dir():
        message = f"{folder} is no folder{where_looked(folder)}"
        return Problem(message, "path takes a folder that TFDS prepared, such as mnist/3.0.1", option="path")
    below = sorted({file.parent for depth in ("*", "*/*") for file in folder.glob(f"{depth}/{INFO}")})
    hint = f"did you mean {below[-1]}?" if below else "prepare the data set with tensorflow_datasets first"
    return Problem(f"{folder} has no {INFO}: it is no version of a data set of TFDS", hint, option="path")


def _read(file: Path, kind: type[_Said]) -> _Said:
    try:
        return kind.model_validate_json(file.read_bytes())
    except OSError as error:
        raise DataError(
            Problem(f"{file} cannot be read: {error.strerror or error}", "copy the folder again")
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        what = f"{place}: {first['msg']}" if place else first["msg"]
        raise DataError(Problem(f"{file} is damaged: {what}", "copy the folder again")) from error


def _splits(path: Path, names: TfdsSplitNames, known: list[str]) -> tuple[dict[str, str], list[Problem]]:
    """Our names of the splits to use, each with TFDS's; and what was asked for and is not there."""
    asked = {name: getattr(names, name) for name in _NAMES}
    wanted = {name: name if given is None else given for name, given in asked.items() if given != "none"}
    if asked["validation"] is None and "val" in known and "validation" not in known:
        wanted["validation"] = "val"
    problems = [
        Problem(
            f"{path} has no split {theirs!r}: it has {', '.join(known) or 'none'}",
            did_you_mean(theirs, known),
            option="split_names",
        )
        for name, theirs in wanted.items()
        if theirs not in known and (asked[name] is not None or name == "train")
    ]
    return {name: theirs for name, theirs in wanted.items() if theirs in known}, problems
