"""Declares the reader `pt2`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from edgeopt.hookspecs import hookimpl
from edgeopt.plugin import Options, ReaderPlugin
from edgeopt.types import ModelState


class Pt2Options(Options):
    """A `.pt2` file of `torch.export.save`."""

    mean: tuple[float, float, float] = Field(
        (0.485, 0.456, 0.406), description="per-channel mean that the model was trained with, of pixels scaled to 0..1"
    )
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        (0.229, 0.224, 0.225), description="per-channel standard deviation of the same"
    )
    classes: tuple[str, ...] | None = Field(None, description='names of the outputs; "0", "1", … when left out')


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
