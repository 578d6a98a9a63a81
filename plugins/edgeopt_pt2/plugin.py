"""Declares the reader `pt2`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeopt.plugins import ModelState, ReaderPlugin, hookimpl
from edgeopt_pt2.options import Pt2Options


def read(path: Path, options: Pt2Options) -> ModelState:
    """Opens a `.pt2` file; see `edgeopt_pt2.reading`."""
    from edgeopt_pt2.reading import read_program  # torch is heavy

    return read_program(path, options)


@hookimpl
def edgeopt_readers() -> Iterator[ReaderPlugin]:
    """The readers of this package."""
    yield ReaderPlugin(
        "pt2",
        "A program of PyTorch, as torch.export.save writes it.",
        Pt2Options,
        read=read,
        suffixes=(".pt2",),
        requires=("torch",),
        install="edgeopt",
    )
