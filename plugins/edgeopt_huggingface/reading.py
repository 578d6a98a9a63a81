"""Reads Hugging Face data sets: finds images and labels in their columns. No code of a data set is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
from datasets.exceptions import DatasetsError

from edgeopt.data.images import labels_of, open_image, unreadable
from edgeopt.plugins import DataError, Problem, RawDataset, did_you_mean, first_line

if TYPE_CHECKING:
    from edgeopt.plugins import Labels
    from edgeopt_huggingface.options import HuggingFaceOptions

_SAVED = ("dataset_dict.json", "state.json")  # what `save_to_disk` leaves
_NO_LABEL = -1


@dataclass(frozen=True, eq=False)
class ColumnImages:
    """The images of one split, in a column of encoded images, bytes or paths below `folder`."""

    rows: datasets.Dataset
    column: str
    labels: Labels
    name: str
    folder: Path | None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        value = self.rows[index][self.column]
        name = self.name_of(index)
        if isinstance(value, dict):  # an Image feature, not decoded
            return self._of_feature(value, f"{name} ({value['path']})" if value["path"] else name)
        if isinstance(value, bytes):
            return open_image(value, name)
        if isinstance(value, str) and self.folder is not None:
            return open_image(self.folder / value, str(self.folder / value))
        raise unreadable(name, ValueError(f"it is {value!r}, not an image"))

    def name_of(self, index: int) -> str:
        """The place of the image in its split."""
        return f"image {index} of {self.name}"

    def _of_feature(self, value: dict[str, Any], name: str) -> Any:
        if value["bytes"] is not None:
            return open_image(value["bytes"], name)
        if value["path"] and Path(value["path"]).is_file():
            return open_image(Path(value["path"]), name)
        try:
            return datasets.Image().decode_example(value)  # inside an archive
        except Exception as error:  # whatever the decoder stumbles over, it is about this image
            raise unreadable(name, error) from error


def read(options: HuggingFaceOptions, commit: str | None, cached: str | None) -> RawDataset:
    """The splits that the options name, with their class names, at `commit` of a hub data set; where that is None, the
    hub could not be asked, and `cached` is the commit in the library's cache.

    Raises `DataError` when the source cannot be reached or read, or a split or column is not there.
    """
    splits = _chosen(_load(options, commit or options.revision), options)
    for rows in splits.values():
        _check_columns(rows, options)
    classes, labels = _labels(splits, options.label_column)
    folder = options.local if options.local is None or options.local.is_dir() else options.local.parent
    images = {
        name: ColumnImages(
            _undecoded(rows, options), options.image_column, labels[name], f"split {name!r} of {options.source}", folder
        )
        for name, rows in splits.items()
    }
    return RawDataset(classes, images, warnings=() if options.local or commit else (_commit_unknown(options, cached),))


def _commit_unknown(options: HuggingFaceOptions, cached: str | None) -> str:
    hint = f', such as the one in the cache: revision = "{cached}"' if cached else ""
    return (
        f"the hub could not be asked which commit of {options.source} is the newest, so a change of the data set would "
        f"not be noticed; name a commit{hint}"
    )


def _load(options: HuggingFaceOptions, revision: str | None) -> Mapping[str, datasets.Dataset]:
    """All splits of the source by their own names."""
    local = options.local
    try:
        if local is None:
            found = datasets.load_dataset(options.source, options.config, revision=revision)
        elif local.is_file():
            found = datasets.load_dataset(local.suffix.removeprefix("."), data_files=str(local))
        elif any((local / name).is_file() for name in _SAVED):
            found = datasets.load_from_disk(str(local))
        else:
            found = datasets.load_dataset(str(local), options.config)
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        hint = "check that it holds images, Parquet or Arrow files"
        if local is None:
            hint = (
                "check its name, config and revision on huggingface.co and the connection (HF_TOKEN for a gated one); "
                "or download it and give source the path of its folder"
            )
        raise DataError(
            Problem(f"{options.source} cannot be loaded: {first_line(error.__cause__ or error)}", hint)
        ) from error
    return {"train": found} if isinstance(found, datasets.Dataset) else found


def _chosen(found: Mapping[str, datasets.Dataset], options: HuggingFaceOptions) -> dict[str, datasets.Dataset]:
    """The splits to use, under edgeopt's names."""
    wanted = {name: getattr(options.split_names, name) for name in ("train", "validation", "test")}
    problems = [
        Problem(f"{options.source} has no split {name!r}", did_you_mean(name, found))
        for name in wanted.values()
        if name not in (None, "none") and name not in found
    ]
    if problems:
        raise DataError(*problems)
    sources = {name: name if source is None else source for name, source in wanted.items()}
    return {name: found[source] for name, source in sources.items() if source in found}


def _check_columns(rows: datasets.Dataset, options: HuggingFaceOptions) -> None:
    problems = [
        Problem(f"{options.source} has no column {name!r}", _naming(option, name, rows.column_names))
        for option, name in (("image_column", options.image_column), ("label_column", options.label_column))
        if name not in rows.column_names
    ]
    if problems:
        raise DataError(*problems)
    feature = rows.features[options.image_column]
    is_text = getattr(feature, "dtype", None) in ("binary", "large_binary", "string", "large_string")
    if not (isinstance(feature, datasets.Image) or is_text):
        raise DataError(
            Problem(
                f"column {options.image_column!r} of {options.source} does not hold images but {feature}",
                "image_column takes images, encoded bytes or paths",
            )
        )
    if held := _no_labels(rows.features[options.label_column]):
        raise DataError(
            Problem(
                f"column {options.label_column!r} holds {held}",
                "each image has one label, a class label, a text or a whole number: set label_column to such a column, "
                "or make one of it",
                option="label_column",
            )
        )


def _no_labels(feature: Any) -> str:
    """What a column holds, in words, where labels cannot be made of it; "" where they can."""
    if isinstance(feature, datasets.ClassLabel):
        return ""
    if isinstance(feature, dict):
        return f"dictionaries ({', '.join(list(feature)[:4])})"
    if not isinstance(feature, datasets.Value):
        is_list = isinstance(feature, list) or hasattr(feature, "feature")
        return "lists, as of several or one-hot labels" if is_list else f"{type(feature).__name__} values"
    dtype = feature.dtype
    if dtype in ("string", "large_string", "string_view", "bool", "null") or dtype.startswith(("int", "uint")):
        return ""
    if "binary" in dtype:
        return "bytes"
    if dtype.startswith(("date", "time", "duration")):
        return f"dates or times ({dtype})"
    return f"{dtype} values"


def _naming(option: str, name: str, known: list[str]) -> str:
    hint = did_you_mean(name, known)
    return f"{hint}. Set {option}".replace("?.", "?") if hint else f"set {option} to one of its columns"


def _undecoded(rows: datasets.Dataset, options: HuggingFaceOptions) -> datasets.Dataset:
    """The image column alone, so that an image that cannot be decoded can be named."""
    images = rows.select_columns([options.image_column])
    if isinstance(rows.features[options.image_column], datasets.Image):
        images = images.cast_column(options.image_column, datasets.Image(decode=False))
    return images


def _labels(splits: Mapping[str, datasets.Dataset], column: str) -> tuple[tuple[str, ...], dict[str, Labels]]:
    """Class names, and the labels of each split: from the column's class names, or its distinct values in order."""
    feature = splits["train"].features[column]
    values = {name: rows.with_format(None)[column][:] for name, rows in splits.items()}
    if isinstance(feature, datasets.ClassLabel):
        other = [name for name, rows in splits.items() if rows.features[column] != feature]
        if other:
            raise DataError(f"split {other[0]!r} has other classes in column {column!r} than train")
        return tuple(feature.names), {
            name: labels_of([_or_none(value) for value in each]) for name, each in values.items()
        }
    distinct = {value for each in values.values() for value in each} - {None}
    kinds = {type(value) for value in distinct}
    if kinds - {str} and kinds - {int, bool}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise DataError(
            Problem(
                f"column {column!r} holds {names}", "labels are class labels, texts or whole numbers; set label_column"
            )
        )
    order = sorted(distinct)
    place = {value: label for label, value in enumerate(order)} | {None: _NO_LABEL}
    return tuple(str(value) for value in order), {
        name: np.asarray([place[value] for value in each], dtype=np.int64) for name, each in values.items()
    }


def _or_none(value: int | None) -> int:
    return _NO_LABEL if value is None else value
