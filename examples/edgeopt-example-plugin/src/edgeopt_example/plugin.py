"""Declares the plugins. Only light imports here: every `edgeopt` command reads this module."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

import edgeopt
from edgeopt.plugins import (
    DatasetOptions,
    DatasetPlugin,
    Form,
    ModelState,
    Options,
    PassContext,
    PassPlugin,
    RawDataset,
)

_DRAWING = 1  # counts up when `shapes.py` draws other images, so that cached results of the old ones are not used


class ShapesOptions(DatasetOptions):
    """What `[dataset]` can set, besides what every data set takes."""

    images: int = Field(100, ge=4, le=10_000, description="images of each shape")
    noise: float = Field(0.1, ge=0.0, le=1.0, description="strength of the noise, as a share of full brightness")
    drawing_seed: int = Field(0, ge=0, lt=2**32, description="seed of the drawings")


class CoarseWeightsOptions(Options):
    """What a `[[passes]]` entry can set."""

    values: int = Field(31, ge=3, le=65_535, description="how many values the weights of one output channel may take")


def load_shapes(options: ShapesOptions) -> RawDataset:
    """The images, drawn when they are read."""
    from edgeopt_example.shapes import SHAPES, Shapes  # numpy and Pillow, which only a run should import

    return RawDataset(SHAPES, {"train": Shapes(options.images, options.noise, options.drawing_seed)})


def shapes_fingerprint(options: ShapesOptions) -> str:
    """Changes when the images do."""
    return f"shapes-{_DRAWING}-{options.images}-{options.noise}-{options.drawing_seed}"


def coarsen(state: ModelState, options: CoarseWeightsOptions, _context: PassContext) -> ModelState:
    """Rounds the weights."""
    from edgeopt_example.coarse import coarsen_weights  # torch, which only a run should import

    return coarsen_weights(state, options.values)


@edgeopt.hookimpl
def edgeopt_datasets() -> Iterable[DatasetPlugin]:
    """The data sets of this package."""
    yield DatasetPlugin(
        "drawn-shapes",
        "Drawn circles, crosses, squares and triangles on a noisy ground.",
        ShapesOptions,
        load=load_shapes,
        fingerprint=shapes_fingerprint,
        requires=("numpy", "pillow"),
        install="edgeopt-example-plugin",
    )


@edgeopt.hookimpl
def edgeopt_passes() -> Iterable[PassPlugin]:
    """The passes of this package."""
    yield PassPlugin(
        "coarse-weights",
        "Rounds weights to few values, evenly spaced for each output channel.",
        CoarseWeightsOptions,
        apply=coarsen,
        accepts=Form.MODULE,
        produces=Form.MODULE,
        requires=("torch",),
        install="edgeopt-example-plugin",
    )
