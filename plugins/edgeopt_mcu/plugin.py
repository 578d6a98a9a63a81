"""Declares the model `mcu`."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.plugins import ModelPlugin, ModelState, TrainingData, hookimpl
from edgeopt_mcu.options import McuOptions


def build_model(options: McuOptions, data: TrainingData) -> ModelState:
    """A small network for the classes of `data`."""
    from edgeopt_mcu.networks import build  # torch is heavy

    return build(options, data)


@hookimpl
def edgeopt_models() -> Iterator[ModelPlugin]:
    """The networks of this package."""
    yield ModelPlugin(
        "mcu",
        "Networks of 20 to 300 KB in int8 for microcontrollers, from scratch.",
        McuOptions,
        build=build_model,
        tasks=("classification", "multi-label"),
        requires=("torch",),
        install="edgeopt",
    )
