"""Declares the data set `hugging-face`."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.files import where_looked
from edgeopt.plugins import DataError, DatasetPlugin, Problem, RawDataset, digest, files_fingerprint, hookimpl
from edgeopt_huggingface.hub import cached_commit, current_commit
from edgeopt_huggingface.options import HuggingFaceOptions


def load(options: HuggingFaceOptions) -> RawDataset:
    """The images of a Hugging Face data set, decoded when they are asked for."""
    from edgeopt_huggingface.reading import read  # datasets, pyarrow and pandas are heavy

    return read(options)


def fingerprint(options: HuggingFaceOptions) -> str:
    """Names, sizes and times of local files; name, configuration and commit of a hub data set.

    Where the hub cannot be asked for the commit, it is that in the library's cache.

    Raises `DataError` when a local path does not exist.
    """
    if options.local is None:
        commit = current_commit(options.source, options.revision) or cached_commit(options.source)
        return digest([options.source, options.config, commit, options.revision])
    if not options.local.exists():
        raise DataError(
            Problem(
                f"{options.local} does not exist{where_looked(options.local)}",
                "source takes a path on this machine, or OWNER/NAME on the hub",
            )
        )
    return files_fingerprint(options.local)


@hookimpl
def edgeopt_datasets() -> Iterator[DatasetPlugin]:
    """The data set."""
    yield DatasetPlugin(
        "hugging-face",
        "A data set of the Hugging Face hub, or local Parquet and Arrow files and image folders.",
        HuggingFaceOptions,
        load=load,
        fingerprint=fingerprint,
        requires=("datasets",),
        install="edgeopt[hugging-face]",
    )
