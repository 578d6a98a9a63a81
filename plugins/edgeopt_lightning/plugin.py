"""Declares the pass `train`."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.plugins import ModelState, PassContext, PassPlugin, hookimpl
from edgeopt_lightning.options import LIBRARIES, TrainOptions


def train(state: ModelState, options: TrainOptions, context: PassContext) -> ModelState:
    """Trains a copy of the model on the training split; see `edgeopt_lightning.train`."""
    from edgeopt_lightning.train import train_model  # torch and Lightning are heavy

    return train_model(state, options, context)


@hookimpl
def edgeopt_passes() -> Iterator[PassPlugin]:
    """The passes of this package."""
    yield PassPlugin(
        "train",
        "Trains the float model on Lightning and keeps the epoch that validates best.",
        TrainOptions,
        apply=train,
        libraries=LIBRARIES,
        requires=("lightning",),
        install="edgeopt[vision]",
        optimizes=False,
    )
