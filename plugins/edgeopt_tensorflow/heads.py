"""Changes of both ends of a classifier: the scale of its images, logits instead of probabilities, other classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeopt.plugins import CheckpointError
from edgeopt_tensorflow.model import given_by, log_of_probabilities, two_logits
from edgeopt_tensorflow.runtime import keras
from edgeopt_tensorflow.scaling import Rescaling

_NARROW = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
_OF_PIXELS = 1 / 64  # no smaller factor is used for anything but pixels; 1/127.5 and 1/255 are
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


def as_logits(network: keras.Model, shape: tuple[int, int, int]) -> tuple[keras.Model, str]:
    """The network with logits as its output for images of `shape` (height, width, channels), and a word on how.

    A softmax of the last layer is taken off, which is exact. Where probabilities come from elsewhere, their logarithm
    is taken: its softmax gives the same probabilities. One output for two classes becomes their two logits.
    """
    network, note = without_activation(network, keras)
    gives = given_by(_answers(network, shape))
    if network.output_shape[-1] == 1 and (note or _is_linear(network)):
        gives = "one logit"
    if gives == "probabilities" and not note:
        logits, note = log_of_probabilities(network.outputs[0]), "logarithm of the probabilities"
    elif gives.startswith("one"):
        logits, note = two_logits(network.outputs[0], gives), "one output decoded as two classes"
    else:
        return network, note or "logits as they are"
    return keras.Model(network.inputs, logits, name=network.name), note


def _is_linear(network: keras.Model) -> bool:
    """Whether the last layer has no activation, and so gives logits whatever their values."""
    return getattr(_last_layer(network, keras), "activation", None) is keras.activations.linear


def without_activation(network: Any, library: Any) -> tuple[Any, str]:
    """The network without a softmax at its end, or a sigmoid of one output, and a word on what was taken off.

    `library` is the Keras that the network is of.
    """
    last = _last_layer(network, library)
    name = "sigmoid" if network.output_shape[-1] == 1 else "softmax"
    if getattr(last, "activation", None) is getattr(library.activations, name):
        last.activation = library.activations.linear
        return network, f"{name} of the last layer taken off"
    if name == "softmax" and isinstance(last, library.layers.Softmax) and last in network.layers:
        return library.Model(network.inputs, last.input, name=network.name), "softmax layer taken off"
    return network, ""


def _answers(network: keras.Model, shape: tuple[int, int, int]) -> Any:
    images = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    return np.asarray(network(images, training=False))


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


def rescaled(network: keras.Model, change: Rescaling, shape: tuple[int, int, int]) -> keras.Model:
    """The network behind a layer that changes the scale of its images, of `shape` (height, width, channels)."""
    images = keras.Input(shape, name="images")
    changed = keras.layers.Rescaling(list(change.scale), list(change.offset), name="rescaling")(images)
    return keras.Model(images, network(changed), name=f"rescaled_{network.name}")


def rescales_pixels(network: Any) -> str:
    """The name of a layer that brings pixels, 0..255, to the scale of the others; "" where there is none."""
    for layer in _all_layers(network):
        kind = type(layer).__name__
        if kind == "Rescaling" and np.max(np.abs(layer.scale)) <= _OF_PIXELS:
            return str(layer.name)
        if kind == "Normalization" and layer.mean is not None and np.max(np.abs(np.asarray(layer.mean))) >= 1:
            return str(layer.name)
    return ""


def _all_layers(network: Any) -> Iterator[Any]:
    """Every layer of a network of any Keras, those of networks within it included."""
    for layer in network.layers:
        if hasattr(layer, "layers"):
            yield from _all_layers(layer)
        else:
            yield layer


def _last_layer(network: Any, library: Any) -> Any:
    layer: Any = network.layers[-1]
    history = getattr(network.outputs[0], "_keras_history", None)  # the public API does not name an output's layer
    if history is not None:
        layer = history.operation if hasattr(history, "operation") else history.layer
    return _last_layer(layer, library) if isinstance(layer, library.Model) else layer


def in_float32(network: Any) -> Any:
    """The network with every layer in float32: with mixed_float16, for one, no converter takes its layers."""
    config = network.get_config()
    wide = _widened(config)
    if wide == config:
        return network
    copy = type(network).from_config(wide)
    if not copy.built:
        copy.build(network.input_shape)
    copy.set_weights([np.asarray(each, np.float32) if _is_narrow(each) else each for each in network.get_weights()])
    return copy


def _is_narrow(weight: Any) -> bool:
    return str(weight.dtype) in ("float16", "bfloat16")


def _widened(config: Any) -> Any:
    """A description whose policies and types of half precision are float32."""
    if isinstance(config, dict):
        return {
            name: "float32" if name in ("dtype", "name") and value in _NARROW else _widened(value)
            for name, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(map(_widened, config))
    return config
