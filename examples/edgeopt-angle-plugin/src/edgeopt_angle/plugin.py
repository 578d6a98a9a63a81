"""Declares the plugins. Only light imports here: every `edgeopt` command reads this module."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

import edgeopt
from edgeopt.plugins import (
    DatasetOptions,
    DatasetPlugin,
    ModelPlugin,
    ModelState,
    Options,
    RawDataset,
    Task,
    TaskPlugin,
    TrainingData,
)

_FOLDER = Path(__file__).parent
_DRAWING = 1  # counts up when `bars.py` draws other images, so that cached results of the old ones are not used


class AngleOptions(Options):
    """What `[task]` can set."""

    close_degrees: float = Field(5.0, gt=0.0, le=90.0, description="an answer that is off by no more is right, °")


class BarsOptions(DatasetOptions):
    """What `[dataset]` can set, besides what every data set takes."""

    images: int = Field(600, ge=20, le=100_000, description="how many images")
    noise: float = Field(0.1, ge=0.0, le=1.0, description="strength of the noise, as a share of full brightness")
    drawing_seed: int = Field(0, ge=0, lt=2**32, description="seed of the drawings")


class NetOptions(Options):
    """What `[model]` can set."""

    width: int = Field(16, ge=4, le=256, description="channels of the first convolution")


def make_task(options: AngleOptions) -> Task:
    """The task as the options describe it."""
    from edgeopt_angle.task import Angle  # light, and only for whoever needs it

    return Angle(options.close_degrees)


def load_bars(options: BarsOptions) -> RawDataset:
    """The images, drawn when they are read. They have no classes."""
    from edgeopt_angle.bars import RotatedBars  # numpy, which only a run should import

    return RawDataset((), {"train": RotatedBars(options.images, options.noise, options.drawing_seed)})


def bars_fingerprint(options: BarsOptions) -> str:
    """Changes when the images do."""
    return f"bars-{_DRAWING}-{options.images}-{options.noise}-{options.drawing_seed}"


def build(options: NetOptions, data: TrainingData) -> ModelState:
    """The network with random weights."""
    from edgeopt_angle.network import build_network  # torch, which only a run should import

    return build_network(options.width, data)


@edgeopt.hookimpl
def edgeopt_tasks() -> Iterable[TaskPlugin]:
    """The tasks of this package."""
    yield TaskPlugin(
        "angle",
        "The angle of what an image shows, 0° to 180°: mean error in degrees.",
        AngleOptions,
        make=make_task,
        kotlin_files=(_FOLDER / "AngleAnswering.kt",),
        page_files=(_FOLDER / "angle.js",),
        line_templates=(_FOLDER / "angle.python.j2",),
        device_modules=("edgeopt_angle.answers",),
        install="edgeopt-angle-plugin",
    )


@edgeopt.hookimpl
def edgeopt_datasets() -> Iterable[DatasetPlugin]:
    """The data sets of this package."""
    yield DatasetPlugin(
        "rotated-bars",
        "Noisy images of a bar, and its angle.",
        BarsOptions,
        load=load_bars,
        fingerprint=bars_fingerprint,
        tasks=("angle",),
        requires=("numpy",),
        install="edgeopt-angle-plugin",
    )


@edgeopt.hookimpl
def edgeopt_models() -> Iterable[ModelPlugin]:
    """The models of this package."""
    yield ModelPlugin(
        "angle-net",
        "Three convolutions that answer with a direction.",
        NetOptions,
        build=build,
        tasks=("angle",),
        requires=("torch",),
        install="edgeopt-angle-plugin",
    )
