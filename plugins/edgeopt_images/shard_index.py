"""Where in a tar file each image stands, and what its label is: one pass over the file, remembered for the next time.

Samples are those of WebDataset: files behind one another whose names are alike up to the first dot.
"""

from __future__ import annotations

import os
import pickle
import re
import tarfile
import uuid
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from edgeopt.files import parsed_json, user_cache
from edgeopt.plugins import DataError, Problem, digest, first_line, printable
from edgeopt_images.options import WebDatasetOptions
from edgeopt_images.shard_files import Shard, file_system

_VERSION = 1
_AHEAD_BYTES = 4 << 20
_LABEL_BYTES = 1 << 20  # a label is a few letters, and a description beside it some more
_PARTS = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")


@dataclass(frozen=True)
class ShardIndex:
    """The whole samples of a tar file: their names, and where the bytes of each image stand; labels as texts.

    `bad` says of other samples what they lack.
    """

    keys: list[str] = field(default_factory=list)
    starts: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    labels: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


def known_index(shard: Shard, options: WebDatasetOptions) -> ShardIndex | None:
    """The index of a shard as it was made before; None where there is none."""
    try:
        read = pickle.loads(_file_of(shard, options).read_bytes())
    except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError):
        return None
    return read if isinstance(read, ShardIndex) else None


def index_of(shard: Shard, options: WebDatasetOptions) -> ShardIndex:
    """The index of a shard, made where there is none yet, and kept in the user's cache.

    Raises `DataError` for a file that cannot be read or is no tar file; what is whole of one that is cut short is
    read.
    """
    if (known := known_index(shard, options)) is not None:
        return known
    made = _made(shard, options)
    file = _file_of(shard, options)
    pending = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
    try:  # a cache that cannot be written costs time alone
        file.parent.mkdir(parents=True, exist_ok=True)
        pending.write_bytes(pickle.dumps(made))
        pending.replace(file)
    except OSError:
        pending.unlink(missing_ok=True)
    return made


def _file_of(shard: Shard, options: WebDatasetOptions) -> Path:
    place = shard.place if shard.is_remote else os.path.abspath(shard.place)  # noqa: PTH100 - without following links
    read = [options.image_keys, options.label_key, options.label_field]
    return user_cache() / "shards" / f"{digest([_VERSION, place, shard.size, shard.mark, read])}.pickle"


def _made(shard: Shard, options: WebDatasetOptions) -> ShardIndex:
    index = ShardIndex()
    try:
        with _opened(shard) as stream:
            sample = _Sample("")
            for key, suffix, member, tar in _members(stream, shard, index):
                if key != sample.key:
                    _close(sample, shard, options, index)
                    sample = _Sample(key)
                if suffix in options.image_keys and suffix not in sample.images:
                    sample.images[suffix] = (member.offset_data, member.size)
                elif suffix == options.label_key and member.size <= _LABEL_BYTES:
                    content = tar.extractfile(member)
                    sample.label = content.read() if content else None
            _close(sample, shard, options, index)
    except tarfile.TarError as error:
        hint = "a shard is a plain tar file; copy or make it again"
        raise DataError(Problem(f"{shard.place} cannot be read: {first_line(error)}", hint)) from error
    except OSError as error:
        raise DataError(
            Problem(f"{shard.place} cannot be read: {first_line(error)}", "check permissions and connection")
        ) from error
    return index


@dataclass
class _Sample:
    key: str
    images: dict[str, tuple[int, int]] = field(default_factory=dict)
    label: bytes | None = None


def _members(
    stream: IO[bytes], shard: Shard, index: ShardIndex
) -> Iterator[tuple[str, str, tarfile.TarInfo, tarfile.TarFile]]:
    """The files of a shard that belong to samples, by the names and endings of these."""
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        members = iter(tar)
        while True:
            try:
                member = next(members)
            except (StopIteration, tarfile.ReadError) as error:
                if isinstance(error, tarfile.ReadError) and not tar.offset:
                    raise
                stream.seek(tar.offset)
                end = stream.read(tarfile.BLOCKSIZE)
                if len(end) < tarfile.BLOCKSIZE or any(end):  # a tar file ends in zeros
                    index.bad.append(f"{shard.place} is cut short or damaged at byte {tar.offset:,}")
                return
            found = _PARTS.fullmatch(member.name)
            if not member.isfile() or found is None or found[1].rsplit("/", 1)[-1].startswith("__"):
                continue
            if member.offset_data + member.size > shard.size:
                index.bad.append(f"{shard.place} is cut short in {printable(member.name)}")
                return
            yield found[1], found[2].lower(), member, tar


def _close(sample: _Sample, shard: Shard, options: WebDatasetOptions, index: ShardIndex) -> None:
    """Takes a sample whose last file was seen, or says what it lacks."""
    if not sample.key or not (sample.images or sample.label):
        return
    name = f"sample {printable(sample.key)} of {printable(shard.place)}"
    image = next((sample.images[key] for key in options.image_keys if key in sample.images), None)
    if image is None:
        index.bad.append(f"{name} has no image: none of its files ends in {', '.join(options.image_keys)}")
        return
    if sample.label is None:
        index.bad.append(f"{name} has no .{options.label_key}")
        return
    try:
        label = _label(sample.label, options)
    except ValueError as error:
        index.bad.append(f"{name} has no usable label: {error}")
        return
    index.keys.append(printable(sample.key))
    index.starts.append(image[0])
    index.sizes.append(image[1])
    index.labels.append(label)


def _label(content: bytes, options: WebDatasetOptions) -> str:
    text = content.decode("utf-8").strip()
    value: Any = text
    if options.label_key.endswith("json"):
        value = parsed_json(text)
        if isinstance(value, dict):
            if options.label_field not in value:
                raise ValueError(f"its JSON has no {options.label_field!r}")
            value = value[options.label_field]
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError(f"{str(value)[:60]!r} is neither a text nor a whole number")
    return printable(str(value).strip())


@contextmanager
def _opened(shard: Shard) -> Iterator[IO[bytes]]:
    if not shard.is_remote:
        with Path(shard.place).open("rb") as stream:
            yield stream
        return
    files, path = file_system(shard.place)
    with files.open(path, "rb", cache_type="readahead", block_size=_AHEAD_BYTES) as stream:
        yield stream
