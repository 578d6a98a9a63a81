"""Opens files that Keras 2 wrote, through tf-keras: they answer and can be converted, and cannot be trained.

Keras 3 reads many of them, but not all: it lacks arguments and layers that Keras 2 had.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from edgeopt.export.predictor import quiet
from edgeopt.plugins import CheckpointError, Json, Problem, first_line
from edgeopt_tensorflow.model import (
    INPUT_NAME,
    Answers,
    Gives,
    SavedModelNotes,
    in_single,
    keys_of,
    to_logits,
    write_saved,
)
from edgeopt_tensorflow.runtime import import_keras_2, tf
from edgeopt_tensorflow.scaling import Rescaling

#: Calls of TensorFlow that a file may name: arithmetic on tensors, and nothing that touches files or runs code.
_ARITHMETIC = ("math.", "nn.", "__operators__.")
_SHAPES = frozenset(
    (
        "cast",
        "clip_by_value",
        "concat",
        "convert_to_tensor",
        "expand_dims",
        "identity",
        "pad",
        "reshape",
        "shape",
        "slice",
        "split",
        "squeeze",
        "stack",
        "tile",
        "transpose",
        "unstack",
        "image.resize",
        "compat.v1.shape",
        "compat.v1.transpose",
        "zeros_like",
        "ones_like",
    )
)
_CALLS = ("TFOpLambda", "SlicingOpLambda")
_OTHER_CALLS = ("ClassMethod", "InstanceMethod", "InstanceProperty", "TensorFlowOpLayer")


def calls_refused(config: Json) -> Iterator[tuple[str, str]]:
    """Layers of a description that call something of TensorFlow other than arithmetic, each with what is wrong."""
    if isinstance(config, list):
        for each in config:
            yield from calls_refused(each)
    if not isinstance(config, dict):
        return
    kind, inner = config.get("class_name"), config.get("config")
    if kind in _OTHER_CALLS:
        yield str(config.get("name", kind)), f"is code ({kind})"
    if kind in _CALLS:
        called = str(inner.get("function", "")) if isinstance(inner, dict) else ""
        if not (called.startswith(_ARITHMETIC) or called in _SHAPES):
            yield str(config.get("name", kind)), f"calls {called or 'something unnamed'}"
    for each in config.values():
        yield from calls_refused(each)


def load_old_file(path: Path, option: str | None) -> Any:
    """The tf-keras model of a file whose description has been found free of code.

    Raises `CheckpointError` where tf-keras is missing or cannot read it either.
    """
    try:
        tf_keras = import_keras_2()
    except ImportError as error:
        raise CheckpointError(
            Problem(f"{path} is a file of Keras 2, and tf-keras is not here", "pip install tf-keras", option=option)
        ) from error
    try:
        with quiet():
            return tf_keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many types
        raise CheckpointError(
            Problem(
                f"{path} is a file of Keras 2 and cannot be read with tf-keras: {first_line(error)}",
                "open it with the versions that wrote it, and write a SavedModel with model.export(folder)",
                option=option,
            )
        ) from error


@dataclass(frozen=True, eq=False)
class OldKerasModel(Answers):
    """A network of Keras 2 behind a change of its images' scale; it is kept as a SavedModel. What it `gives` is said of
    a classifier, and one that is none has `output_count` outputs.
    """

    network: Any
    change: Rescaling
    gives: Gives = "logits"
    output_count: int = 0
    loader: ClassVar[str] = "edgeopt_tensorflow.model:load_saved_model"

    @property
    def parameter_count(self) -> int:
        """How many numbers the network has learned or may learn."""
        return int(self.network.count_params())

    def save(self, folder: Path) -> None:
        """Writes a SavedModel, and says how it is called."""
        _, *shape = self.network.inputs[0].shape
        scale, offset = (1.0,) * shape[-1], (0.0,) * shape[-1]
        keys = keys_of(self.output_count or 1)
        outputs = keys if self.output_count else ()
        notes = SavedModelNotes("serving_default", INPUT_NAME, keys[0], None, scale, offset, "logits", outputs)
        write_saved(self.traced(None, shape), self.network, notes, folder)

    def answer(self, images: tf.Tensor) -> tf.Tensor:
        return self.answers(images)[0]

    def answers(self, images: tf.Tensor) -> list[tf.Tensor]:
        scaled = images * tf.constant(self.change.scale, tf.float32) + tf.constant(self.change.offset, tf.float32)
        given = in_single(tf.nest.flatten(self.network(scaled, training=False)))
        return given if self.output_count else [to_logits(given[0], self.gives)]
