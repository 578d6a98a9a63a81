"""Changes of both ends of a classifier: the scale of its images, logits instead of probabilities, other classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeopt.plugins import CheckpointError
from edgeopt_tensorflow.model import are_probabilities, log_of_probabilities
from edgeopt_tensorflow.runtime import keras
from edgeopt_tensorflow.scaling import Rescaling

_PASSED_OVER = ("Activation", "Softmax", "Flatten", "Reshape", "Dropout")


def layers_of(network: keras.Model) -> list[keras.layers.Layer]:
    """Every layer that does something, those of networks within the network included."""
    found: list[keras.layers.Layer] = []
    for layer in network.layers:
        found += layers_of(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def head_of(network: keras.Model) -> keras.layers.Layer:
    """The layer whose weights give the classes: the last Dense, or the last 1x1 convolution.

    Raises `CheckpointError` where the network ends in another way.
    """
    for layer in reversed(layers_of(network)):
        if isinstance(layer, keras.layers.Dense | keras.layers.Conv2D):
            return layer
        if type(layer).__name__ not in _PASSED_OVER:
            break
    raise CheckpointError(
        f"{network.name} does not end in a layer of classes, but in {type(network.layers[-1]).__name__}",
        hint="give a model whose last layer with weights is a Dense",
    )


def as_logits(network: keras.Model, image_size: int) -> tuple[keras.Model, str]:
    """The network with logits as its output, and a word on how that was done.

    A softmax of the last layer is taken off, which is exact. Where probabilities come from elsewhere, their logarithm
    is taken: its softmax gives the same probabilities.
    """
    last = _last_layer(network)
    linear, softmax = keras.activations.linear, keras.activations.softmax
    if getattr(last, "activation", None) is softmax:
        last.activation = linear
        return network, "softmax of the last layer taken off"
    if isinstance(last, keras.layers.Softmax) and last in network.layers:
        return keras.Model(network.inputs, last.input, name=network.name), "softmax layer taken off"
    images = np.random.default_rng(0).normal(size=(4, image_size, image_size, 3)).astype(np.float32)
    if are_probabilities(np.asarray(network(images, training=False))):
        return (
            keras.Model(network.inputs, log_of_probabilities(network.outputs[0]), name=network.name),
            "logarithm of the probabilities",
        )
    return network, "logits as they are"


def with_head(network: keras.Model, classes: int) -> keras.Model:
    """The network with a fresh last layer for so many classes.

    Raises `CheckpointError` where it does not end in a layer of classes.
    """
    head = head_of(network)
    if head not in network.layers:
        raise CheckpointError(
            f"the last layer of {network.name} is inside another network", hint="save the model without nesting"
        )
    features = head.input
    if isinstance(head, keras.layers.Conv2D):
        features = keras.layers.GlobalAveragePooling2D(name="pooled")(features)
    logits = keras.layers.Dense(classes, name="classes")(features)
    return keras.Model(network.inputs, logits, name=network.name)


def rescaled(network: keras.Model, change: Rescaling, image_size: int) -> keras.Model:
    """The network behind a layer that changes the scale of its images."""
    images = keras.Input((image_size, image_size, 3), name="images")
    changed = keras.layers.Rescaling(list(change.scale), list(change.offset), name="rescaling")(images)
    return keras.Model(images, network(changed), name=f"rescaled_{network.name}")


def _last_layer(network: keras.Model) -> keras.layers.Layer:
    layer: Any = network.layers[-1]
    history = getattr(network.outputs[0], "_keras_history", None)  # the public API does not name an output's layer
    if history is not None:
        layer = history.operation
    return _last_layer(layer) if isinstance(layer, keras.Model) else layer
