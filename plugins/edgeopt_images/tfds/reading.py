"""Images and labels out of the records of TensorFlow Datasets. TensorFlow stays out: torch may stand beside it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.files import user_cache
from edgeopt.plugins import DataError, Problem, RawDataset, digest, first_line
from edgeopt_images.many_labels import ManyLabels
from edgeopt_images.tfds.images import RecordImages
from edgeopt_images.tfds.records import Records, open_records, read_info, values_of

if TYPE_CHECKING:
    from edgeopt.plugins import Labels
    from edgeopt_images.options import TfdsOptions
    from edgeopt_images.tfds.columns import Columns

_SHOWN = 100  # records that are named
_VERSION = 1
_NO_LABEL = -1


@dataclass(frozen=True, eq=False)
class OneLabelImages(RecordImages):
    """Images of one label each, int64 (n,)."""

    labels: Labels


@dataclass(frozen=True, eq=False)
class ManyLabelImages(ManyLabels, RecordImages):
    """Images of any number of labels each."""


@dataclass(frozen=True)
class _Labelled:
    """The records of a split that can be used, and the labels of all of them, one record's behind the other's."""

    records: Records
    places: list[int]
    labels: list[Any]
    ends: list[int]


def read_tfds(
    options: TfdsOptions, file_format: str, splits: Mapping[str, str], columns: Columns, fingerprint: str
) -> RawDataset:
    """The images of each split, by our names, with TFDS's own classes or the distinct labels in order.

    Raises `DataError` that names every record without an image or a label, unless such are to be skipped.
    """
    features, files = read_info(options.path, splits)
    feature = features[columns.label]
    bad: list[str] = []
    names = getattr(getattr(feature, "feature", feature), "names", None)
    read = {
        split: _labelled(each, file_format, columns, len(names or ()), bad, options, digest([fingerprint, split]))
        for split, each in files.items()
    }
    warnings = _judged(bad, options)
    if names is not None:
        classes, place = tuple(map(str, names)), {label: label for label in range(_NO_LABEL, len(names))}
    else:
        distinct = sorted({label for each in read.values() for label in each.labels})
        classes, place = tuple(map(str, distinct)), {label: index for index, label in enumerate(distinct)}
    return RawDataset(
        classes,
        {split: _images(each, columns, options, classes, place) for split, each in read.items()},
        warnings=warnings,
    )


def _images(
    read: _Labelled, columns: Columns, options: TfdsOptions, classes: Sequence[str], place: Mapping[Any, int]
) -> OneLabelImages | ManyLabelImages:
    labels = np.asarray([place[label] for label in read.labels], dtype=np.int64)
    places = np.asarray(read.places, dtype=np.int64)
    if options.several_labels:
        ends = np.asarray(read.ends, dtype=np.int64)
        return ManyLabelImages(read.records, places, columns.image, options.window, labels, ends, len(classes))
    return OneLabelImages(read.records, places, columns.image, options.window, labels)


def _labelled(
    files: Mapping[Path, int],
    file_format: str,
    columns: Columns,
    classes: int,
    bad: list[str],
    options: TfdsOptions,
    key: str,
) -> _Labelled:
    """The labels of all records: one pass over the files, remembered in the user's cache for the next time. Where there
    are names of `classes`, labels are their places, and -1 of an image that has none. The files have as many records as
    `files` says.
    """
    records = open_records(files, file_format, options.path)
    kept = user_cache() / "tfds" / f"{digest([_VERSION, key, columns.label, options.several_labels])}.npz"
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError), np.load(kept, allow_pickle=False) as read:
        return _Labelled(records, *(read[name].tolist() for name in ("places", "labels", "ends")))
    wrong: list[str] = []
    found = _Labelled(records, [], [], [])
    for index in range(len(records.file_of)):
        try:
            labels = [
                each.decode() if isinstance(each, bytes) else each
                for each in values_of(records.record(index), columns.label)
            ]
        except Exception as error:  # of damaged bytes the decoder says much
            wrong.append(f"{records.name_of(index)} cannot be read: {first_line(error)}")
            continue
        if len(labels) != 1 and not options.several_labels:
            wrong.append(f"{records.name_of(index)} has {len(labels)} labels and not one")
            continue
        if strange := [each for each in labels if classes and each not in range(_NO_LABEL, classes)]:
            wrong.append(f"{records.name_of(index)}: label {strange[0]} is none of 0 to {classes - 1}")
            continue
        found.places.append(index)
        found.labels.extend(labels)
        found.ends.append(len(found.labels))
    if not wrong:
        _keep(kept, found)
    bad += wrong
    return found


def _keep(file: Path, found: _Labelled) -> None:
    pending = file.with_name(f".{uuid.uuid4().hex[:8]}.npz")
    try:  # a cache that cannot be written costs time alone
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(pending, places=np.asarray(found.places), labels=np.asarray(found.labels), ends=np.asarray(found.ends))
        pending.replace(file)
    except OSError:
        pending.unlink(missing_ok=True)


def _judged(bad: Sequence[str], options: TfdsOptions) -> tuple[str, ...]:
    if not bad:
        return ()
    if options.on_error == "skip":
        records = "1 record was" if len(bad) == 1 else f"{len(bad)} records were"
        return (f"{records} left out of {options.path}; the first: {bad[0]}",)
    hint = 'copy the files again, or set on_error = "skip" to go on without such records'
    problems = [Problem(each, hint) for each in bad[:_SHOWN]]
    if more := len(bad) - len(problems):
        problems.append(Problem(f"{more} more records cannot be used", hint))
    raise DataError(*problems)
