"""Which files a sweep needs beside those of a run, and why some cannot be had. Light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from edgeopt.arrays import ImageSize, sides_of
from edgeopt.bench.request import BenchRequest
from edgeopt.bench.rows import image_size_of, refusal
from edgeopt.report.finished_files import FinishedFile


@dataclass(frozen=True)
class Place:
    """A place on the axes of a sweep, at which all files that can be there are timed turn by turn.

    `size` is that of images, px; None for each file's own.
    """

    threads: int
    batch: int
    size: ImageSize | None = None


def places(request: BenchRequest) -> tuple[Place, ...]:
    """All places of a sweep: numbers of images with each number of threads at the files' own size, and the other sizes
    with the first number of images.
    """
    own = [Place(threads, batch) for threads in request.threads for batch in request.batches]
    return (
        *own,
        *(Place(threads, request.batches[0], size) for threads in request.threads for size in request.sizes),
    )


def are_there(files: Sequence[FinishedFile], place: Place) -> list[FinishedFile]:
    """The files that a place is for: at another size than their own, those of another."""
    return [each for each in files if place.size is None or place.size != image_size_of(each)]


WantedKey: TypeAlias = tuple[str, ImageSize, int]


@dataclass(frozen=True)
class Wanted:
    """A file that is to be made of the program behind `file`: for images of `size` px, and for `batch` in a call where
    it would take fewer; 0 for as many as it takes.
    """

    file: FinishedFile
    size: ImageSize
    batch: int = 0

    @property
    def key(self) -> WantedKey:
        """By what one is told from another."""
        return self.file.name, self.size, self.batch


def wanted_at(file: FinishedFile, place: Place, largest: int) -> Wanted | None:
    """What a file must be made anew for, to be timed at a place; None for nothing.

    One that takes more images in a call is made for the largest number that is asked for.
    """
    takes_too_few = refusal(file, place.batch) is not None
    if place.size is None and not takes_too_few:
        return None
    size = place.size or image_size_of(file)
    return Wanted(file, size, (largest if place.size is None else place.batch) if takes_too_few else 0)


def all_wanted(request: BenchRequest, files: Sequence[FinishedFile]) -> list[Wanted]:
    """Each file that is to be made, once: those for more images in a call, then one size after the other."""
    found: dict[WantedKey, Wanted] = {}
    for place in places(request):
        for file in are_there(files, place):
            if wanted := wanted_at(file, place, max(request.batches)):
                found.setdefault(wanted.key, wanted)
    return sorted(found.values(), key=lambda each: (each.size != image_size_of(each.file), sides_of(each.size)))
