"""A data set, a network with its checkpoint, and a pass of one's own, in one file.

`recipe.toml` names this file with `plugins = ["parts.py"]`, and from there its three plugins by their names. There are
three parts below, each with its options, its work, and the hook that declares it: copy the ones that you need.

Every `edgeopt` command with this recipe reads this file, and so do processes that time files and want nothing else in
their memory. So torch, NumPy and Pillow are imported where they are used, and not at the top.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

from pydantic import Field

from edgeopt.plugins import (
    TASKS,
    DataError,
    DatasetOptions,
    DatasetPlugin,
    Form,
    ModelPlugin,
    ModelState,
    NothingChangedError,
    Options,
    PassPlugin,
    PassRecord,
    Problem,
    RawDataset,
    digest,
    files_fingerprint,
    hookimpl,
)

# ---- a data set: images that a table lists -------------------------------------------------------------------------


class TableOptions(DatasetOptions):
    """`[dataset]` with `use = "table"`; image_size, classes, augmentation and the like come with DatasetOptions."""

    path: Path = Field(description="CSV file with the columns file, label and split", examples=["labels.csv"])


def load_table(options: TableOptions) -> RawDataset:
    """The images as they are. edgeopt draws the splits that are missing, resizes and normalizes."""
    import numpy as np

    from edgeopt.data.images import FileImages

    rows = _rows(options)
    classes = tuple(sorted({row["label"] for row in rows}))
    splits = {}
    for split in {row["split"] for row in rows}:
        own = [row for row in rows if row["split"] == split]
        files = tuple(options.path.parent / row["file"] for row in own)
        splits[split] = FileImages(files, np.array([classes.index(row["label"]) for row in own]))
    return RawDataset(classes, splits)


def fingerprint_table(options: TableOptions) -> str:
    """A text that changes when the images do, without reading them: a run then knows that it must begin anew."""
    files = sorted({row["file"] for row in _rows(options)})
    return digest([_rows(options), [files_fingerprint(options.path.parent / file) for file in files]])


def _rows(options: TableOptions) -> list[dict[str, str]]:
    if not options.path.is_file():
        hint = "python make_files.py draws some images; or give the path of your own table"
        raise DataError(Problem(f"there is no table {options.path.resolve()}", hint, option="path"))
    with options.path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"file", "label", "split"} <= rows[0].keys():
        raise DataError(Problem(f"{options.path} is no table with the columns file, label and split", option="path"))
    return rows


@hookimpl
def edgeopt_datasets():
    """What recipes can name in `[dataset]`."""
    yield DatasetPlugin(
        "table", "Images that a CSV file lists.", TableOptions, load=load_table, fingerprint=fingerprint_table
    )


# ---- a model: a network of one's own, with weights that were trained elsewhere -------------------------------------


class PartsNetOptions(Options):
    """`[model]` with `use = "parts-net"`."""

    width: int = Field(16, ge=4, le=256, description="channels of the first convolution")
    weights: Path | None = Field(None, description="checkpoint to start from; random weights when left out")


@cache
def _network_class():
    from torch import nn

    class PartsNet(nn.Module):
        """Float32 (n, 3, size, size) to logits (n, classes)."""

        def __init__(self, width: int, classes: int) -> None:
            super().__init__()
            self.features = nn.Sequential(
                *self._block(3, width), *self._block(width, 2 * width), *self._block(2 * width, 4 * width)
            )
            self.head = nn.Linear(4 * width, classes)

        @staticmethod
        def _block(before: int, after: int) -> tuple[nn.Module, ...]:
            return nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()

        def forward(self, images):
            return self.head(self.features(images).mean((2, 3)))

    PartsNet.__qualname__ = "PartsNet"  # not "_network_class.<locals>.PartsNet": pickles look for it in this file
    return PartsNet


def __getattr__(name: str):
    """`PartsNet` is there for whoever asks for it, and takes the seconds that torch takes only then."""
    if name == "PartsNet":
        return _network_class()
    raise AttributeError(name)


def build(options: PartsNetOptions, data) -> ModelState:
    """The network for the classes of the data set, its weights from the checkpoint."""
    network = _network_class()(options.width, len(data.classes))
    untrained: tuple[str, ...] = ()
    if options.weights:
        from edgeopt.networks.checkpoints import load_checkpoint

        # takes what DataParallel, Lightning or a training script wrapped around; a head of other classes stays random
        untrained = load_checkpoint(network, options.weights, head_names=["head"]).untrained
    return ModelState(
        network, Form.MODULE, TASKS["classification"], data.classes, data.preprocessing, untrained=untrained
    )


def fingerprint_weights(options: PartsNetOptions) -> str:
    """A text that changes with the checkpoint; one that is not there is told by `edgeopt check`, with its line."""
    from edgeopt.networks.weights_option import checkpoint_fingerprint

    return checkpoint_fingerprint(str(options.weights)) if options.weights else ""


@hookimpl
def edgeopt_models():
    """What recipes can name in `[model]`."""
    yield ModelPlugin(
        "parts-net",
        "Three convolutions and a linear layer.",
        PartsNetOptions,
        build=build,
        fingerprint=fingerprint_weights,
        requires=("torch",),
        install="edgeopt",
    )


# ---- a pass: what is done to the weights ---------------------------------------------------------------------------


class ClipOptions(Options):
    """`[[passes]]` with `use = "clip-outliers"`."""

    deviations: float = Field(3.0, gt=0, le=10, description="how far from the mean a weight may lie, in deviations")


def clip_outliers(state: ModelState, options: ClipOptions, context) -> ModelState:
    """A few large weights stretch the range of their layer, and int8 has 255 steps for all of it."""
    import torch

    from edgeopt.networks.copies import copy_module

    network = copy_module(state.module)  # a pass leaves what it was given alone
    weights = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    clipped = 0
    with torch.no_grad(), context.progress.bar("clipping", len(weights)) as bar:
        for weight in weights:
            mean, reach = weight.mean(), options.deviations * weight.std()
            clipped += int(((weight - mean).abs() > reach).sum())
            weight.clamp_(mean - reach, mean + reach)
            bar.advance()
    if not clipped:  # nothing is silently skipped
        raise NothingChangedError(
            f"no weight lies {options.deviations} deviations from the mean of its layer",
            hint="make deviations smaller, or leave this pass out",
        )
    return state.after(PassRecord("clip-outliers", {"clipped_weights": clipped}), network)


@hookimpl
def edgeopt_passes():
    """What recipes can name in `[[passes]]`."""
    yield PassPlugin(
        "clip-outliers",
        "Clips weights that lie far from the mean of their layer.",
        ClipOptions,
        apply=clip_outliers,
        requires=("torch",),
        install="edgeopt",
    )
