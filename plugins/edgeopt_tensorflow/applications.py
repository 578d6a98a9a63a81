"""Builds the networks of Keras Applications for a data set's classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.export.predictor import quiet
from edgeopt.plugins import (
    TASKS,
    CheckpointError,
    Form,
    Json,
    ModelState,
    PassRecord,
    Problem,
    RecipeError,
    TrainingData,
    first_line,
    size_in_words,
    size_of,
)
from edgeopt_tensorflow.architectures import ARCHITECTURES
from edgeopt_tensorflow.heads import head_of, layers_of, rescaled
from edgeopt_tensorflow.keras_files import load_keras_file
from edgeopt_tensorflow.model import KerasModel
from edgeopt_tensorflow.options import KERAS, ApplicationsOptions
from edgeopt_tensorflow.runtime import keras
from edgeopt_tensorflow.scaling import rescaling

_IMAGENET_CLASSES = 1000


def build(options: ApplicationsOptions, data: TrainingData, seed: int) -> ModelState:
    """A float network for the classes of `data`; without weights, its own are drawn from `seed`.

    The scaling layers that some architectures come with are cut off: images are normalized already. Published weights
    know another scale; a layer in front gives it to them.

    Raises `CheckpointError` when weights cannot be had or do not fit, `RecipeError` when the images do not.
    """
    keras.utils.set_random_seed(seed)
    preprocessing = data.preprocessing
    if options.weights == "imagenet" and preprocessing.channels == 1:
        hint = 'set channels = 3: grey images are shown in all three; or weights = "none"'
        raise RecipeError(Problem("ImageNet weights of Keras Applications take colours", hint, option="weights"))
    network = _make(options, len(data.classes), preprocessing.shape)
    facts: dict[str, Json] = {"arch": options.arch, "weights": options.weights}
    architecture = ARCHITECTURES[options.arch]
    untrained: tuple[str, ...] = ()
    if options.weights == "imagenet":
        untrained, facts["loaded"] = _copy(_published(options), network, "imagenet")
    elif options.weights != "none":
        untrained, facts["loaded"] = _load(Path(options.weights).expanduser(), network)
    network = _without_preprocessing(network) if architecture.preprocessing == "built-in" else network
    if options.weights == "imagenet":
        if architecture.expects == "caffe":
            _swap_red_and_blue(network)
        change = rescaling(data.preprocessing, architecture.expects)
        if not change.is_identity:
            network = rescaled(network, change, preprocessing.shape)
            facts["rescaled_to"] = architecture.expects
    facts["parameters"] = network.count_params()
    return ModelState(
        KerasModel(network),
        Form.MODULE,
        TASKS["classification"],
        data.classes,
        data.preprocessing,
        framework=KERAS,
        history=(PassRecord("model", facts),),
        untrained=untrained,
    )


def _make(
    options: ApplicationsOptions, classes: int, shape: tuple[int, int, int] | None, weights: str | None = None
) -> keras.Model:
    architecture = ARCHITECTURES[options.arch]
    arguments: dict[str, Any] = {"weights": weights, "classes": classes, "classifier_activation": None}
    if shape is not None:
        arguments["input_shape"] = shape
    if architecture.alpha:
        arguments["alpha"] = options.alpha
    if architecture.preprocessing == "option":
        arguments["include_preprocessing"] = False
    try:
        return getattr(keras.applications, options.arch)(**arguments)
    except ValueError as error:
        if weights is not None:
            raise _no_weights(options, error) from error
        size = size_in_words(size_of(*shape[:2])) if shape else ""
        message = f"{options.arch} does not take images of {size} px: {first_line(error)}"
        raise RecipeError(Problem(message, "choose a larger image_size")) from error


def _published(options: ApplicationsOptions) -> keras.Model:
    """The network with its ImageNet weights, from Keras's cache or the network."""
    try:
        return _make(options, _IMAGENET_CLASSES, None, "imagenet")
    except CheckpointError:
        raise
    except Exception as error:  # Keras raises a plain Exception when a download fails
        raise _no_weights(options, error) from error


def _no_weights(options: ApplicationsOptions, error: Exception) -> CheckpointError:
    reason = first_line(error)
    return CheckpointError(
        Problem(
            f"ImageNet weights of {options.arch} cannot be had: {reason}",
            'put a file on this machine and name it: weights = "path/to/it.weights.h5"',
            option="weights",
        )
    )


def _load(path: Path, network: keras.Model) -> tuple[tuple[str, ...], str]:
    """Fills the network from a file of weights or of a whole model; the last layer may be another.

    Returns the layers that were not filled, and a word on what was.
    """
    if not path.name.endswith(".weights.h5"):
        return _copy(load_keras_file(path, "weights"), network, path.name)
    layers = [layer for layer in layers_of(network) if layer.get_weights()]
    before = [layer.get_weights() for layer in layers]
    for layer, weights in zip(layers, before, strict=True):
        layer.set_weights([np.full_like(each, np.nan) for each in weights])  # what is not loaded stays so
    try:
        with quiet():
            network.load_weights(path, skip_mismatch=True)
    except Exception as error:  # h5py and Keras raise many types for a file that is none of theirs
        raise _unreadable(path, error) from error
    missing = [
        layer for layer in layers if any(np.isnan(each).any() for each in layer.get_weights() if each.dtype.kind == "f")
    ]
    _require_head_alone(missing, network, path.name)
    for layer, weights in zip(layers, before, strict=True):
        if layer in missing:
            layer.set_weights(weights)
    return _names(missing), _said(len(layers) - len(missing), len(layers))


def _copy(source: keras.Model, target: keras.Model, name: str) -> tuple[tuple[str, ...], str]:
    """Copies weights layer by layer between two networks of one architecture; the last layer may have other classes.

    Returns what `_load` does.
    """
    pairs = [[layer for layer in layers_of(network) if layer.get_weights()] for network in (source, target)]
    if [type(layer) for layer in pairs[0]] != [type(layer) for layer in pairs[1]]:
        raise CheckpointError(
            Problem(
                f"{name} holds another architecture than the recipe names", "check arch and alpha", option="weights"
            )
        )
    missing = []
    for given, layer in zip(*pairs, strict=True):
        weights = given.get_weights()
        if [each.shape for each in weights] == [each.shape for each in layer.get_weights()]:
            layer.set_weights(weights)
        else:
            missing.append(layer)
    _require_head_alone(missing, target, name)
    return _names(missing), _said(len(pairs[1]) - len(missing), len(pairs[1]))


def _require_head_alone(missing: list[keras.layers.Layer], network: keras.Model, name: str) -> None:
    others = [layer.name for layer in missing if layer is not head_of(network)]
    if others:
        raise CheckpointError(
            Problem(
                f"{name} does not fit the network: {len(others)} layers differ, such as {others[0]!r}",
                "check arch, alpha and image_size",
                option="weights",
            )
        )


def _names(layers: list[keras.layers.Layer]) -> tuple[str, ...]:
    return tuple(str(layer.name) for layer in layers)


def _said(loaded: int, count: int) -> str:
    rest = "" if loaded == count else "; the last layer starts anew, as it has other classes"
    return f"{loaded} of {count} layers{rest}"


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = first_line(error)
    return CheckpointError(
        Problem(f"{path} cannot be read: {reason}", "give a file that Keras's save_weights wrote", option="weights")
    )


def _without_preprocessing(network: keras.Model) -> keras.Model:
    """The network from behind the layers that scale its images."""
    last = max(
        index
        for index, layer in enumerate(network.layers)
        if isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization)
    )
    return keras.Model(network.layers[last].output, network.outputs[0], name=network.name)


def _swap_red_and_blue(network: keras.Model) -> None:
    """Lets the first convolution of a network that knows blue before red take images as RGB."""
    first = next(layer for layer in layers_of(network) if isinstance(layer, keras.layers.Conv2D))
    kernel, *rest = first.get_weights()
    first.set_weights([kernel[:, :, ::-1, :], *rest])
