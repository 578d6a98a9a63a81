"""Opens `.keras`, `.h5` and SavedModel files of anybody. Nothing in a file is executed as Python code.

A SavedModel is a graph of TensorFlow's operators: one that holds others than `operators.py` lists is refused.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from edgeopt.export.predictor import quiet
from edgeopt.files import parsed_json, require_no_bomb
from edgeopt.plugins import (
    TASKS,
    CheckpointError,
    Form,
    ImageSize,
    Json,
    ModelState,
    PassRecord,
    Preprocessing,
    Problem,
    RecipeError,
    TrainingData,
    chosen_size,
    first_line,
    preprocessing_of_source,
    size_in_words,
    size_of,
)
from edgeopt_tensorflow.heads import as_logits, in_float32, rescaled, rescales_pixels, with_head, without_activation
from edgeopt_tensorflow.many_outputs import is_classifier, require_rows, with_outputs
from edgeopt_tensorflow.model import Answers, KerasModel, given_by
from edgeopt_tensorflow.old_keras import OldKerasModel, calls_refused, load_old_file
from edgeopt_tensorflow.options import KERAS, KerasFileOptions, KerasReaderOptions, Scale
from edgeopt_tensorflow.runtime import import_keras_2, keras

if TYPE_CHECKING:
    from edgeopt.plugins import ForeignModel
from edgeopt_tensorflow.saved_model_source import ONE_INPUT, Shape, open_saved_model, signature_of
from edgeopt_tensorflow.scaling import rescaling

_CODE = ("Lambda", "__lambda__", "function", "TFSMLayer")
_MODULES = ("keras", "builtins")
_PIXEL_STEP = 0.5  # of an input, from one pixel value to the next: 1 where pixels go in as they are


def build(options: KerasFileOptions, data: TrainingData) -> ModelState:
    """The file's model for the classes of `data`.

    Raises `CheckpointError` for a file that cannot be read safely, `RecipeError` where it does not fit the data.
    """
    path, shape, classes = Path(options.path).expanduser(), data.preprocessing.shape, len(data.classes)
    if path.is_dir():
        saved = open_saved_model(path, data.preprocessing, options.scale, shape)
        if saved.notes.outputs:
            raise CheckpointError(f"{path}: returns {', '.join(saved.notes.outputs)}, not one value a class", ONE_INPUT)
        count = _classes_of(saved, shape)
        if count != classes:
            raise _other_classes(count, classes, "a SavedModel's last layer cannot be replaced; give a .keras file")
        return _state(saved, data.classes, data.preprocessing, {"file": path.name, "trainable": False})
    network = open_keras_file(path, "path")
    _require_one(network, path)
    _require_shape(network, path, shape)
    _require_runs(network, path, shape, "path")
    if not isinstance(network, keras.Model):
        if options.replace_head:
            raise CheckpointError(
                Problem(
                    f"{path} is a file of Keras 2, whose last layer cannot be replaced",
                    "leave replace_head out, or save the network with Keras 3",
                    option="replace_head",
                )
            )
        warnings = _warnings(network, data.preprocessing, options.scale, 'scale = "pixels"')
        old = _old_model(network, data.preprocessing, options.scale, shape)
        count = _classes_of(old, shape)
        if count != classes:
            raise _other_classes(count, classes, "a Keras 2 file's last layer cannot be replaced; save it with Keras 3")
        return _state(old, data.classes, data.preprocessing, {"file": path.name, "trainable": False}, warnings)
    warnings = _warnings(network, data.preprocessing, options.scale, 'scale = "pixels"')
    fresh = options.replace_head
    network, note = (with_head(network, classes), "replaced") if fresh else as_logits(network, shape)
    count = network.output_shape[-1]
    if count != classes:
        raise _other_classes(count, classes, "set replace_head = true to start with a fresh last layer")
    facts: dict[str, Json] = {"file": path.name, "head": note, "scale": options.scale}
    model = KerasModel(_on_scale(network, data.preprocessing, options.scale, shape))
    facts |= {"parameters": model.parameter_count}
    state = _state(model, data.classes, data.preprocessing, facts, warnings)
    return replace(state, untrained=("classes",) if fresh else ())


def read(path: Path, options: KerasReaderOptions) -> ModelState:
    """The file's model for a conversion. Raises `CheckpointError`."""
    warnings: tuple[str, ...] = ()
    names: tuple[str, ...] = ()  # of outputs that are no classifier's
    if path.is_dir():
        signature = signature_of(path, options.output)
        shape = _chosen(signature.spec.shape, path, options.image_size)
        preprocessing = preprocessing_of_source(shape, options.mean, options.std)
        names = () if signature.is_of_a_classifier else signature.outputs
        model: Answers = open_saved_model(path, preprocessing, options.scale, shape, options.output)
    else:
        network = open_keras_file(path)
        _require_images(network, path)
        shape = _chosen(network.inputs[0].shape, path, options.image_size)
        _require_runs(network, path, shape)
        preprocessing = preprocessing_of_source(shape, options.mean, options.std)
        warnings = _warnings(network, preprocessing, options.scale, "source.scale=pixels")
        classifies, is_new = is_classifier(network, options.output), isinstance(network, keras.Model)
        network, names = with_outputs(network, options.output, path, keras if is_new else import_keras_2())
        names = () if classifies else names
        if is_new:
            network = as_logits(network, shape)[0] if classifies else network
            model = KerasModel(_on_scale(network, preprocessing, options.scale, shape))
        elif classifies:
            model = _old_model(network, preprocessing, options.scale, shape)
        else:
            change = rescaling(preprocessing, options.scale)
            model = OldKerasModel(network, change, output_count=len(names))
    history = (PassRecord("source", warnings=warnings),) if warnings else ()
    if names:
        if options.classes:
            hint = "leave source.classes out, or name the output of logits with source.output"
            raise CheckpointError(
                Problem(f"{path}: source.classes are of logits, and it returns {', '.join(names)}", hint)
            )
        require_rows(model, names, shape, path)
        state = _state(model, (), preprocessing, {})
        return replace(state, task=TASKS["numbers"], output_names=names, form=Form.PROGRAM, history=history)
    count = _classes_of(model, shape)
    names = options.classes or tuple(str(index) for index in range(count))
    if len(names) != count:
        raise CheckpointError(Problem(f"{path}: has {count} outputs, and source.classes names {len(names)}"))
    return replace(_state(model, names, preprocessing, {}), form=Form.PROGRAM, history=history)


# ---- Keras's own files ---------------------------------------------------------------------------------------------


def open_keras_file(path: Path, option: str | None = None) -> Any:
    """The model of a `.keras` or `.h5` file: of Keras, or of tf-keras where Keras 2 wrote it and Keras 3 lacks what it
    uses. Weights of half precision are widened to float32, in which files are made.

    Raises `CheckpointError` for a damaged file, one of weights alone, and layers that are code.
    """
    config, version = _checked_config(path, option)
    if version.startswith("2."):
        for name, why in calls_refused(config):
            raise _is_code(path, name, why, option)
        try:
            return load_keras_file(path, option)
        except CheckpointError:
            return in_float32(load_old_file(path, option))
    return load_keras_file(path, option)


def load_keras_file(path: Path, option: str | None = None) -> keras.Model:
    """The model of a `.keras` or `.h5` file that Keras 3 reads, in float32.

    Raises `CheckpointError` for a damaged file, one of weights alone, and layers that are code.
    """
    _checked_config(path, option)
    try:
        with quiet():
            network = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many types
        raise _unreadable(path, error, option) from error
    if not isinstance(network, keras.Model):
        raise CheckpointError(Problem(f"{path} holds a {type(network).__name__}, not a model", option=option))
    return in_float32(network)


def _checked_config(path: Path, option: str | None) -> tuple[Json, str]:
    """The network's description, without code in it, and the version of Keras that wrote it."""
    if not path.is_file():
        raise CheckpointError(Problem(f"{path} does not exist", "give the path of a .keras or .h5 file", option=option))
    try:
        config, version = _config(path)
        refusals = list(_refusals(config, ("keras", "builtins", "tf_keras") if version.startswith("2.") else _MODULES))
    except Exception as error:  # zipfile, h5py and json raise many types for a damaged file
        raise _unreadable(path, error, option) from error
    if config is None:
        raise CheckpointError(
            Problem(
                f"{path} holds weights and no description of the network",
                "save the whole model, with model.save(...)",
                option=option,
            )
        )
    for name, why in refusals:
        raise _is_code(path, name, why, option)
    return config, version


def _is_code(path: Path, name: str, why: str, option: str | None) -> CheckpointError:
    return CheckpointError(
        Problem(
            f"{path}: layer {name!r} {why}, which edgeopt does not run from a file",
            "build the network of Keras's own layers, or save it as a SavedModel",
            option=option,
        )
    )


def _old_model(network: Any, preprocessing: Preprocessing, scale: Scale, shape: Shape) -> OldKerasModel:
    """A network of tf-keras that answers in logits images that `preprocessing` normalized."""
    network, note = without_activation(network, import_keras_2())
    images = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    gives = given_by(np.asarray(network(images, training=False)))
    if note:
        gives = "one logit" if gives.startswith("one") else "logits"
    return OldKerasModel(network, rescaling(preprocessing, scale), gives)


def _warnings(network: Any, preprocessing: Preprocessing, scale: Scale, instead: str) -> tuple[str, ...]:
    """What the user should know of a network that scales pixels itself and is to get something else."""
    layer = rescales_pixels(network)
    normalized = max(preprocessing.scale_and_offset()[0]) < _PIXEL_STEP
    if not layer or scale == "pixels" or (scale == "recipe" and not normalized):
        return ()
    fed = "images that are normalized before it" if scale == "recipe" else f"images of scale {scale!r}"
    return (f"its layer {layer!r} takes pixels, 0..255, and it gets {fed}: set {instead}",)


def _config(path: Path) -> tuple[Json, str]:
    """The network's description, None where a file has none, and the version of Keras that wrote it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            require_no_bomb(archive, path)
            version = parsed_json(archive.read("metadata.json")).get("keras_version", "")
            return parsed_json(archive.read("config.json")), str(version)
    import h5py  # comes with Keras

    with h5py.File(path, "r") as file:
        text = file.attrs.get("model_config")
        version = file.attrs.get("keras_version", "")
        version = version.decode() if isinstance(version, bytes) else str(version)
        return (None if text is None else parsed_json(text)), version


def _refusals(config: Json, modules: Sequence[str], name: str = "") -> Iterator[tuple[str, str]]:
    """Layers of a description that are code, or are defined outside Keras, each with what is wrong."""
    if isinstance(config, list):
        for each in config:
            yield from _refusals(each, modules, name)
    if not isinstance(config, dict):
        return
    inner = config.get("config")
    if "class_name" in config:
        name = inner["name"] if isinstance(inner, dict) and isinstance(inner.get("name"), str) else name
        kind, module = config["class_name"], config.get("module")
        if kind in _CODE:
            yield name, f"is code ({kind})"
        elif module and str(module).split(".")[0] not in modules:
            yield name, f"is defined in {module}"
    for each in config.values():
        yield from _refusals(each, modules, name)


def _unreadable(path: Path, error: Exception, option: str | None) -> CheckpointError:
    return CheckpointError(
        Problem(
            f"{path} cannot be read as a Keras model: {first_line(error)}",
            "save it again, with model.save(...)",
            option=option,
        )
    )


def _require_images(network: keras.Model, path: Path) -> None:
    if not getattr(network, "inputs", None):
        raise CheckpointError(f"{path}: the model does not know its input", hint="call it once before it is saved")
    wanted = "images (n, height, width, 3), or of 1 channel"
    given = _only("inputs", network.inputs, path)
    if len(given.shape) != 4 or given.shape[-1] not in (1, 3):
        raise CheckpointError(f"{path}: its input {given.name} is {tuple(given.shape)}, not {wanted}", hint=ONE_INPUT)


def _require_one(network: keras.Model, path: Path) -> None:
    _require_images(network, path)
    returned, wanted = _only("outputs", network.outputs, path), "one value a class, (n, classes)"
    if len(returned.shape) != 2:
        message = f"{path}: its output {returned.name} is {tuple(returned.shape)}, not {wanted}"
        raise CheckpointError(message, hint=ONE_INPUT)


def _only(what: str, tensors: Sequence[Any], path: Path) -> Any:
    if len(tensors) != 1:
        names = ", ".join(tensor.name for tensor in tensors)
        raise CheckpointError(f"{path}: has {len(tensors)} {what}: {names}", hint=ONE_INPUT)
    return tensors[0]


def _chosen(given: Sequence[int | None], path: Path, wanted: ImageSize | None) -> Shape:
    """Height, width and channels of the images (n, height, width, channels) that a file takes, or is to take."""
    _, height, width, channels = given
    return (*chosen_size((height, width), wanted, str(path)), channels or 3)


def _require_runs(network: Any, path: Path, shape: Shape, option: str | None = None) -> None:
    """Raises `CheckpointError` where the network itself fails on an image: Keras builds layers that cannot run."""
    images = np.zeros((network.inputs[0].shape[0] or 1, *shape), np.float32)
    try:
        with quiet():
            network(images, training=False)
    except Exception as error:  # Keras and TensorFlow raise many types
        reason = next((line for line in map(_plain, str(error).splitlines()) if line), type(error).__name__)
        message = f"{path}: its network cannot be run on an image: {reason}"
        raise CheckpointError(Problem(message, "mend it in Keras, and save it again", option=option)) from error


def _plain(line: str) -> str:
    """A line of an error without colours, node names, and what Keras says before the reason."""
    told = re.sub(r"\x1b\[[0-9;]*m|\{\{.*?\}\}|^Exception encountered when calling .*$", "", line)
    return told.strip()


def _require_shape(network: keras.Model, path: Path, shape: Shape) -> None:
    _, height, width, channels = network.inputs[0].shape
    if channels != shape[2]:
        taken_channels = "1 channel" if channels == 1 else f"{channels} channels"
        message = f"{path} takes images of {taken_channels}, and those of the data set have {shape[2]}"
        raise RecipeError(Problem(message, f"set channels to {channels}"))
    own = (height or shape[0], width or shape[1])
    if own != shape[:2]:
        taken, wanted = size_of(*own), size_in_words(size_of(*shape[:2]))
        written = taken if isinstance(taken, int) else list(taken)
        raise RecipeError(
            Problem(f"{path} takes images of {height} x {width} px, not {wanted} px", f"set image_size to {written}")
        )


def _on_scale(network: keras.Model, preprocessing: Preprocessing, scale: Scale, shape: Shape) -> keras.Model:
    change = rescaling(preprocessing, scale)
    return network if change.is_identity else rescaled(network, change, shape)


# ---- both ----------------------------------------------------------------------------------------------------------


def _classes_of(model: Answers, shape: Shape) -> int:
    height, width, channels = shape
    return int(model.logits(np.zeros((1, channels, height, width), np.float32)).shape[1])


def _other_classes(count: int, classes: int, hint: str) -> RecipeError:
    return RecipeError(
        Problem(f"the file's model has {count} classes, and the data set {classes}", hint, option="path")
    )


def _state(
    model: Answers,
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    facts: dict[str, Json],
    warnings: tuple[str, ...] = (),
) -> ModelState:
    return ModelState(
        cast("ForeignModel", model),  # each kind of `Answers` saves itself
        Form.MODULE,
        TASKS["classification"],
        classes,
        preprocessing,
        framework=KERAS,
        batch_range=(1, getattr(model, "fixed_batch", None) or 1024),
        history=(PassRecord("model", facts, warnings=warnings),),
    )
