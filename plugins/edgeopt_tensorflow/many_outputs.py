"""Networks of Keras and SavedModels that are no classifiers: which outputs they have, and which of them are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.plugins import CheckpointError, Problem, did_you_mean
from edgeopt_tensorflow.model import Answers
from edgeopt_tensorflow.runtime import keras

_IMAGES = 2
_AXES_OF_LOGITS = 2


def is_classifier(network: Any, wanted: str | None) -> bool:
    """Whether a network of Keras has one output, of a value a class, or that is the one that is `wanted`."""
    outputs = list(network.outputs)
    if wanted is not None and wanted in names_of(network):
        outputs = [outputs[names_of(network).index(wanted)]]
    return len(outputs) == 1 and len(outputs[0].shape) == _AXES_OF_LOGITS


def names_of(network: Any) -> tuple[str, ...]:
    """Outputs by their keys where the network returns a dictionary, else by their layers, else output_0, output_1, …"""
    structure = _returned(network)
    names = sorted(structure) if isinstance(structure, dict) else list(getattr(network, "output_names", ()))
    if len(set(names)) == len(network.outputs):
        return tuple(map(str, names))
    return tuple(f"output_{place}" for place in range(len(network.outputs)))


def with_outputs(network: Any, wanted: str | None, path: Path, library: Any) -> tuple[Any, tuple[str, ...]]:
    """The network with its outputs in a list, or with the one that is `wanted` alone; and their names. `library` is the
    Keras that the network is of.

    Raises `CheckpointError` where there is none of that name.
    """
    names = names_of(network)
    chosen = kept(names, wanted, path)
    outputs = [network.outputs[names.index(name)] for name in chosen]
    if wanted is None and not isinstance(_returned(network), dict):
        return network, chosen
    return library.Model(network.inputs, outputs if len(outputs) > 1 else outputs[0], name=network.name), chosen


def _returned(network: Any) -> Any:
    """What a network of Keras 3, or of Keras 2, returns as it is nested: the public API of both flattens it."""
    return getattr(network, "_outputs_struct" if isinstance(network, keras.Model) else "_nested_outputs", None)


def kept(names: Sequence[str], wanted: str | None, path: Path) -> tuple[str, ...]:
    """All names, or the one that is `wanted`. Raises `CheckpointError` where there is none of that name."""
    if wanted is None:
        return tuple(names)
    if wanted not in names:
        hint = did_you_mean(wanted, names) or f"it has {', '.join(names)}"
        raise CheckpointError(Problem(f"{path}: has no output {wanted!r}, as source.output says", hint))
    return (wanted,)


def require_rows(model: Answers, names: Sequence[str], shape: tuple[int, int, int], path: Path) -> None:
    """Raises `CheckpointError` for an output that has not as many numbers for each image, whatever it shows."""
    height, width, channels = shape
    count = model.fixed_batch or _IMAGES
    noise = np.random.default_rng(0).normal(size=(2, count, channels, height, width)).astype(np.float32)
    hint = "the first axis of an output must be that of the images, and the others must not change"
    if len(names) > 1:
        hint = f"keep another one with source.output: {', '.join(names)}"
    for name, answer, other in zip(names, *(model.outputs(images) for images in noise), strict=True):
        if not answer.ndim or len(answer) != count or answer.shape != other.shape:
            message = f"{path}: its output {name!r} is {answer.shape} for {count} images, not a row of numbers for each"
            raise CheckpointError(Problem(message, hint))
