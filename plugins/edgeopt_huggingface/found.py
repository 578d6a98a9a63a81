"""What one look at a Hugging Face data set found. Light: `edgeopt check` asks it, and nothing is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeopt.data.walk import FoundFile, files_below, require_unchanged
from edgeopt.files import where_looked
from edgeopt.plugins import DataError, Problem, RawDataset, digest
from edgeopt_huggingface.hub import cached_commit, current_commit
from edgeopt_huggingface.options import HuggingFaceOptions


@dataclass(frozen=True)
class FoundSource:
    """The files of a data set on this machine, or the commit of one on the hub; None where the hub could not be asked
    for it, and `cached` is then that in the library's cache.
    """

    options: HuggingFaceOptions
    files: tuple[FoundFile, ...] = ()
    commit: str | None = None
    cached: str | None = None

    def fingerprint(self) -> str:
        """Names, sizes and times of local files; name, configuration and commit of a hub data set."""
        if self.options.local is not None:
            return digest([[file.name, file.size, file.changed] for file in self.files])
        options = self.options
        return digest([options.source, options.config, self.commit or self.cached, options.revision])

    def survey(self) -> None:
        """Labels stand in the files' columns, which are not read for it."""
        return

    def load(self) -> RawDataset:
        """The images, decoded when they are asked for.

        Raises `DataChangedError` for a file that is no longer as it was found.
        """
        from edgeopt_huggingface.reading import read  # datasets, pyarrow and pandas are heavy

        if (root := self.options.local) is not None:
            for file in self.files:
                require_unchanged(root / file.name, file.size, file.changed)
        return read(self.options, self.commit, self.cached)


def find_source(options: HuggingFaceOptions) -> FoundSource:
    """Looks at the local files, or asks the hub for the commit.

    Raises `DataError` when a local path does not exist.
    """
    root = options.local
    if root is None:
        commit = current_commit(options.source, options.revision)
        return FoundSource(options, commit=commit, cached=None if commit else cached_commit(options.source))
    if not root.exists():
        raise DataError(
            Problem(
                f"{root} does not exist{where_looked(root)}",
                "source takes a path on this machine, or OWNER/NAME on the hub",
            )
        )
    return FoundSource(options, _files(root))


def _files(root: Path) -> tuple[FoundFile, ...]:
    if root.is_dir():
        return files_below(root, lambda _: True).taken
    found = root.stat()
    return (FoundFile("", found.st_size, found.st_mtime_ns),)
