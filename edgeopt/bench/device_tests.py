"""Files at a place of a sweep, by the test images that devices feed them with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.arrays import ImageSize, load_outputs, of_images
from edgeopt.bench.request import BenchRequest
from edgeopt.bench.rows import image_size_of
from edgeopt.bench.sweep.images import read_targets
from edgeopt.bench.sweep.make import Swept, SweptFile
from edgeopt.bench.sweep.there import MissingFile, files_there
from edgeopt.bench.sweep.wanted import Place
from edgeopt.measure.on_device import ImagesThere
from edgeopt.pipeline.kept_tests import KeptTests, kept_tests
from edgeopt.plugins.registry import Registry
from edgeopt.report.finished_files import FinishedFile

if TYPE_CHECKING:  # NumPy is heavy, and only named here
    from edgeopt.arrays import Outputs
    from edgeopt.types import Role


@dataclass(frozen=True)
class DeviceGroup:
    """Files that are fed with the same images, which stand in a file for devices to take."""

    files: tuple[SweptFile, ...]
    tests: KeptTests
    images: ImagesThere


@dataclass(frozen=True)
class FilesAt:
    """All files at a place: those that can run there, and those that could not be made for it."""

    groups: tuple[DeviceGroup, ...]
    missing: tuple[MissingFile, ...]


@dataclass(frozen=True)
class DeviceTests:
    """Test images of runs, each written to a file below `aside` once for each size."""

    request: BenchRequest
    files: Sequence[FinishedFile]
    swept: Swept
    registry: Registry
    aside: Path
    _own: dict[Path, KeptTests] = field(default_factory=dict)
    _written: dict[tuple[Path, ImageSize], ImagesThere] = field(default_factory=dict)

    def at(self, place: Place) -> FilesAt:
        """The files at a place.

        Raises `UserError` where the test images of a run are gone.
        """
        there = files_there(self.files, self.swept, self.request, place)
        swept = [each for each in there if isinstance(each, SweptFile)]
        groups: dict[str, DeviceGroup] = {}
        for each in swept:
            beside = [other for other in swept if _fed_alike(each, other)]
            tests, images = self._tests(each, beside)
            group = groups.get(images.sha256, DeviceGroup((), tests, images))
            groups[images.sha256] = replace(group, files=(*group.files, each))
        return FilesAt(tuple(groups.values()), tuple(each for each in there if isinstance(each, MissingFile)))

    def _tests(self, swept: SweptFile, beside: Sequence[SweptFile]) -> tuple[KeptTests, ImagesThere]:
        """The tests of a file, with answers of the programs behind all files `beside` it, and their images."""
        import numpy as np  # heavy, as is what reads images

        folder, size = swept.file.folder, image_size_of(swept.file)
        if folder not in self._own:
            self._own[folder] = kept_tests(folder, self.registry, self.request.images)
        tests = self._own[folder]
        if swept.tests is None:
            path = self.aside / f"images-{len(self._written)}.npy"
            if (folder, size) not in self._written:
                np.save(path, tests.pixels)
        else:
            path = swept.tests.pixels
            targets = read_targets(swept.tests.targets, tests.task)
            programs = _answers_of_programs(beside, len(targets))
            pixels = np.load(path, mmap_mode="r")  # devices take the file, and nothing here looks at it
            tests = replace(tests, pixels=pixels, targets=targets, programs=programs)
        if (folder, size) not in self._written:
            self._written[folder, size] = ImagesThere.of(path)
        return tests, self._written[folder, size]


def _fed_alike(one: SweptFile, other: SweptFile) -> bool:
    """Whether two files are of one run and take images of one size."""
    return one.file.folder == other.file.folder and image_size_of(one.file) == image_size_of(other.file)


def _answers_of_programs(files: Sequence[SweptFile], count: int) -> Mapping[Role, Outputs]:
    """What the programs behind files for another size than their run's answered for the first images."""
    return {
        each.file.row.role: of_images(load_outputs(each.tests.outputs), slice(count)) for each in files if each.tests
    }
