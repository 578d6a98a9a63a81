"""Images in tar files, as WebDataset has them: found, counted, and opened. Light until images are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.plugins import DataError, DataSurvey, Problem, RawDataset, digest
from edgeopt_images.class_names import in_order
from edgeopt_images.options import WebDatasetOptions
from edgeopt_images.shard_files import Shard, find_shards
from edgeopt_images.shard_index import ShardIndex, index_of, known_index

if TYPE_CHECKING:
    from edgeopt.plugins import Images

_SHOWN = 100  # samples that are named
_QUICK_BYTES = 1 << 30  # of local shards that are looked through for a survey


@dataclass(frozen=True)
class FoundShards:
    """The tar files of each split."""

    options: WebDatasetOptions
    shards: Mapping[str, tuple[Shard, ...]]

    def fingerprint(self) -> str:
        """Names, sizes and times of the files, or what their host has instead of a time."""
        return digest(
            [[split, [[each.name, each.size, each.mark] for each in files]] for split, files in self.shards.items()]
        )

    def survey(self) -> DataSurvey | None:
        """The classes and counts, where the files were looked through before, or that takes seconds."""
        every = [shard for shards in self.shards.values() for shard in shards]
        unknown = [shard for shard in every if known_index(shard, self.options) is None]
        if sum(each.size for each in unknown) > _QUICK_BYTES or any(each.is_remote for each in unknown):
            return None
        indices, warnings = self._indices()
        classes = self._classes(indices)
        counts = {split: dict.fromkeys(classes, 0) for split in self.shards}
        for split, each in indices.items():
            for index in each:
                for label in index.labels:
                    counts[split][self._name(label)] += 1
        return DataSurvey(counts, warnings)

    def load(self) -> RawDataset:
        """The images, read and decoded when they are asked for.

        Raises `DataError` that names every sample without an image or a label, unless such are to be skipped.
        """
        from edgeopt_images.shard_images import shard_images  # numpy and Pillow are heavy

        indices, warnings = self._indices()
        classes = self._classes(indices)
        place = {name: label for label, name in enumerate(classes)}
        splits: dict[str, Images] = {}
        for split, each in indices.items():
            labels = [place[self._name(label)] for index in each for label in index.labels]
            splits[split] = shard_images(self.shards[split], each, labels, self.options.window)
        return RawDataset(classes, splits, warnings=warnings)

    def _indices(self) -> tuple[dict[str, list[ShardIndex]], tuple[str, ...]]:
        indices = {split: [index_of(each, self.options) for each in shards] for split, shards in self.shards.items()}
        bad = [each for some in indices.values() for index in some for each in index.bad]
        bad += self._strangers(indices)
        if not bad:
            return indices, ()
        if self.options.on_error == "skip":
            samples = "1 sample was" if len(bad) == 1 else f"{len(bad)} samples were"
            return indices, (f"{samples} left out of the shards; the first: {bad[0]}",)
        hint = 'mend the shards, or set on_error = "skip" to go on without them'
        problems = [Problem(each, hint) for each in bad[:_SHOWN]]
        if more := len(bad) - len(problems):
            problems.append(Problem(f"{more} more samples cannot be used", hint))
        raise DataError(*problems)

    def _strangers(self, indices: Mapping[str, list[ShardIndex]]) -> list[str]:
        """Labels that are no place of a class, where the options name the classes."""
        names = self.options.class_names
        if names is None:
            return []
        known = {str(number) for number in range(len(names))}
        strangers = {label for some in indices.values() for index in some for label in index.labels} - known
        if strangers:
            what = f"labels {', '.join(sorted(strangers)[:5])} are none of 0 to {len(names) - 1}"
            raise DataError(Problem(f"{what}, and class_names has {len(names)}", option="class_names"))
        return []

    def _classes(self, indices: Mapping[str, list[ShardIndex]]) -> tuple[str, ...]:
        if self.options.class_names is not None:
            return self.options.class_names
        return in_order(label for some in indices.values() for index in some for label in index.labels)

    def _name(self, label: str) -> str:
        return label if self.options.class_names is None else self.options.class_names[int(label)]


def find_webdataset(options: WebDatasetOptions) -> FoundShards:
    """Looks up the tar files; raises `DataError` that names those that are not there."""
    problems: list[Problem] = []
    shards = {}
    for split, patterns in options.patterns().items():
        try:
            shards[split] = find_shards(patterns, split)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(*problems)
    return FoundShards(options, shards)
