"""The tar files that patterns name, here or behind an address. Light where they are here."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt.files import where_looked
from edgeopt.plugins import DataError, Problem, first_line

_SHOWN = 5
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST = 100_000  # files that one pattern may name
#: By what file systems tell that a file is another one.
_MARKS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True)
class Shard:
    """A tar file: path or address, size in bytes, and what changes with it: its time in ns, or what its host says."""

    place: str
    size: int
    mark: str

    @property
    def is_remote(self) -> bool:
        """Whether fsspec opens it."""
        return "://" in self.place

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.place.rsplit("/", 1)[-1]


def expanded(pattern: str) -> list[str]:
    """A pattern with every {a,b} and {0000..0099} written out, as a shell does.

    Raises `ValueError` for a pattern that names more files than anybody has, or a range that runs backwards.
    """
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    before, after = pattern[: found.start()], pattern[found.end() :]
    if span := _RANGE.fullmatch(found[1]):
        first, last = int(span[1]), int(span[2])
        if last < first or last - first >= _MOST:
            raise ValueError(f"{{{found[1]}}} is no range of up to {_MOST:,} numbers, the smaller one first")
        width = len(span[1]) if span[1].startswith("0") else 0
        parts = [f"{number:0{width}}" for number in range(first, last + 1)]
    else:
        parts = found[1].split(",")
    rest = expanded(after)
    if len(parts) * len(rest) > _MOST:
        raise ValueError(f"{pattern} names more than {_MOST:,} files")
    return [f"{before}{part}{end}" for part in parts for end in rest]


def find_shards(patterns: Sequence[str], option: str) -> tuple[Shard, ...]:
    """The files, each once and in order; raises `DataError` that names all that are not there."""
    problems: list[Problem] = []
    shards: dict[str, Shard] = {}
    for pattern in patterns:
        try:
            places = [place for each in expanded(pattern) for place in _matching(each)]
            if not places:
                where = "" if "://" in pattern else where_looked(Path(pattern))
                problems.append(Problem(f"no file is called as {pattern}{where}", "check the path", option=option))
            shards |= {place: _look(place) for place in places}
        except ValueError as error:
            problems.append(Problem(str(error), 'write a range as in "train-{0000..0099}.tar"', option=option))
        except FileNotFoundError as error:
            missing = str(error.filename or error)
            where = "" if "://" in missing else where_looked(Path(missing))
            problems.append(Problem(f"{missing} does not exist{where}", f"{pattern} names it", option=option))
        except Exception as error:  # each host and its library has errors of its own
            problems.append(Problem(f"{pattern} cannot be looked up: {first_line(error)}", _HINT, option=option))
    problems += [_compressed(each, option) for each in shards.values() if not each.name.lower().endswith(".tar")]
    if problems:
        shown = problems[:_SHOWN]
        if more := len(problems) - len(shown):
            shown.append(Problem(f"{more} more such problems with shards", option=option))
        raise DataError(*shown)
    return tuple(shards.values())


_HINT = "check address, connection and credentials; fsspec opens it, with the package that its kind of address needs"


def _compressed(shard: Shard, option: str) -> Problem:
    what = "is compressed" if shard.name.lower().endswith((".gz", ".tgz", ".bz2", ".xz", ".zst")) else "is no .tar"
    hint = "unpack it to a plain .tar, in which each image can be found again; images are compressed already"
    return Problem(f"{shard.place} {what}", hint, option=option)


def _matching(place: str) -> Iterator[str]:
    if not any(mark in place for mark in "*?["):
        yield place
    elif "://" not in place:
        yield from sorted(glob.glob(place, recursive=True))  # noqa: PTH207 - it takes absolute patterns as well
    else:
        files, path = file_system(place)
        yield from (files.unstrip_protocol(each) for each in sorted(files.glob(path)))


def _look(place: str) -> Shard:
    if "://" not in place:
        status = os.stat(place)  # noqa: PTH116 - there may be many
        return Shard(place, status.st_size, str(status.st_mtime_ns))
    files, path = file_system(place)
    info = files.info(path)
    return Shard(place, int(info["size"] or 0), next((str(info[name]) for name in _MARKS if info.get(name)), ""))


def file_system(place: str) -> tuple[Any, str]:
    """What opens an address, and the path that it knows the file by."""
    from fsspec.core import url_to_fs  # half of a tenth of a second, and only where an address stands

    found: tuple[Any, str] = url_to_fs(place)
    return found
