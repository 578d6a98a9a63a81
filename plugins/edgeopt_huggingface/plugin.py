"""Declares the data set `hugging-face`."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.plugins import DatasetPlugin, hookimpl
from edgeopt_huggingface.found import find_source
from edgeopt_huggingface.options import HuggingFaceOptions


@hookimpl
def edgeopt_datasets() -> Iterator[DatasetPlugin]:
    """The data set."""
    yield DatasetPlugin(
        "hugging-face",
        "A data set of the Hugging Face hub, or local Parquet and Arrow files and image folders.",
        HuggingFaceOptions,
        find=find_source,
        requires=("datasets",),
        install="edgeopt[hugging-face]",
    )
