"""Records of TFDS's files by their place: those of TFRecord are found by their lengths, those of array_record by its
package.

Source: the TFRecord format, https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgeopt.plugins import DataError, Problem, first_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEADER, _FOOTER = 12, 4  # a length of 8 bytes with its checksum; the checksum of the content


class Records(Protocol):
    """The records of some files, one behind the other; `file_of` says in which each stands, int64 (n,)."""

    @property
    def file_of(self) -> NDArray[np.int64]: ...

    def record(self, index: int) -> bytes:
        """The bytes of one of them."""
        ...

    def name_of(self, index: int) -> str:
        """Its file, and its place in it."""
        ...


@dataclass(frozen=True, eq=False)
class TfRecords:
    """Records in TFRecord files: where the content of each begins, and how long it is, int64 (n,)."""

    files: tuple[Path, ...]
    file_of: NDArray[np.int64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def record(self, index: int) -> bytes:
        """Read where it stands."""
        file: Path = self.files[int(self.file_of[index])]
        with file.open("rb") as stream:
            stream.seek(int(self.starts[index]))
            return stream.read(int(self.sizes[index]))

    def name_of(self, index: int) -> str:
        """Its file, and its place in it."""
        return _name(self.files, self.file_of, index)


@dataclass(frozen=True, eq=False)
class ArrayRecords:
    """Records in files of array_record, which finds them itself; `held` is its reader, made when first asked."""

    files: tuple[Path, ...]
    file_of: NDArray[np.int64]
    held: dict[str, Any] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "file_of": self.file_of, "held": {}}

    def record(self, index: int) -> bytes:
        """Read by array_record."""
        if "source" not in self.held:
            from array_record.python.array_record_data_source import ArrayRecordDataSource  # brings native code

            self.held["source"] = ArrayRecordDataSource([str(file) for file in self.files])
        found: bytes = self.held["source"][index]
        return found

    def name_of(self, index: int) -> str:
        """Its file, and its place in it."""
        return _name(self.files, self.file_of, index)


def read_info(path: Path, splits: Mapping[str, str]) -> tuple[Any, Mapping[str, Mapping[Path, int]]]:
    """TFDS's features of a folder by their names, and by our names of the splits their files, each with the number of
    its records.

    Raises `DataError` where TFDS cannot read what the folder says of itself.
    """
    import tensorflow_datasets as tfds  # heavy

    try:
        info = tfds.builder_from_directory(str(path)).info
        files = {
            ours: dict(zip(map(Path, info.splits[theirs].filepaths), info.splits[theirs].shard_lengths, strict=True))
            for ours, theirs in splits.items()
        }
        return dict(info.features), files
    except Exception as error:  # the library has no base for what it raises
        raise DataError(Problem(f"{path} cannot be read: {first_line(error)}", "copy the folder again")) from error


def open_records(files: Mapping[Path, int], file_format: str, path: Path) -> Records:
    """The records of files, which have as many as the folder `path` says; raises `DataError` where they have others."""
    records: Records = (open_array_records if file_format == "array_record" else open_tfrecords)([*files])
    counts = np.bincount(records.file_of, minlength=len(files))
    if other := [
        Problem(f"{file} has {count} records, and {path} says that they are {expected}", "copy it again")
        for (file, expected), count in zip(files.items(), counts, strict=True)
        if count != expected
    ]:
        raise DataError(*other)
    return records


def features_of(record: bytes) -> Mapping[str, Any]:
    """The features of a record, a serialized `tf.train.Example`, by their names."""
    from tensorflow_datasets.proto import tf_example_pb2  # heavy

    features: Mapping[str, Any] = tf_example_pb2.Example.FromString(record).features.feature
    return features


def values_of(record: bytes, column: str) -> Sequence[Any]:
    """What a record holds of one feature: bytes or whole numbers."""
    features = features_of(record)
    if column not in features:
        return ()
    found = features[column]
    values: Sequence[Any] = found.bytes_list.value or found.int64_list.value
    return values


def open_tfrecords(files: Sequence[Path]) -> TfRecords:
    """Finds the records of TFRecord files; raises `DataError` for one that is cut short or in another format."""
    starts: list[int] = []
    sizes: list[int] = []
    counts: list[int] = []
    for file in files:
        before = len(starts)
        try:
            end = file.stat().st_size
            with file.open("rb") as stream:
                place = 0
                while place < end:
                    head = stream.read(_HEADER)
                    length = struct.unpack("<Q", head[:8])[0] if len(head) == _HEADER else end
                    if place + _HEADER + length + _FOOTER > end:
                        message = (
                            f"{file} is cut short, or no TFRecord file: it ends within record {len(starts) - before}"
                        )
                        raise DataError(Problem(message, "copy it again"))
                    starts.append(place + _HEADER)
                    sizes.append(length)
                    place += _HEADER + length + _FOOTER
                    stream.seek(place)
        except OSError as error:
            raise DataError(Problem(f"{file} cannot be read: {error.strerror or error}", "copy it again")) from error
        counts.append(len(starts) - before)
    return TfRecords(
        tuple(files), _file_of(counts), np.asarray(starts, dtype=np.int64), np.asarray(sizes, dtype=np.int64)
    )


def open_array_records(files: Sequence[Path]) -> ArrayRecords:
    """Counts the records of array_record's files; raises `DataError` for one that it cannot open."""
    from array_record.python.array_record_module import ArrayRecordReader  # brings native code

    counts = []
    for file in files:
        try:
            reader = ArrayRecordReader(str(file))
            counts.append(int(reader.num_records()))
            reader.close()
        except Exception as error:  # the package has no base for what it raises
            raise DataError(Problem(f"{file} cannot be read: {first_line(error)}", "copy it again")) from error
    return ArrayRecords(tuple(files), _file_of(counts))


def _file_of(counts: Sequence[int]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(counts), dtype=np.int64), counts)


def _name(files: Sequence[Path], file_of: NDArray[np.int64], index: int) -> str:
    file = int(file_of[index])
    return f"{files[file]}: record {index - int(np.searchsorted(file_of, file))}"
