"""Models of TensorFlow as edgeopt holds them: a Keras network, or a SavedModel that can only answer.

Inside, images are NHWC; outside they are NCHW like everywhere in edgeopt.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np

from edgeopt.plugins import ExportError, ForeignModel, ModelState
from edgeopt_tensorflow.runtime import keras, tf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Logits, Outputs

Gives: TypeAlias = Literal["logits", "probabilities", "one logit", "one probability"]
"""What a network's outputs are; one value stands for two classes, as behind a sigmoid."""

INPUT_NAME = "input"
OUTPUT_NAME = "logits"
_FILE = "model.keras"
_FOLDER = "saved_model"
_NOTES = "notes.json"
_SMALLEST_PROBABILITY = 1e-7


def in_single(outputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Outputs with their floats, of whatever precision, as float32."""
    return [tf.cast(each, tf.float32) if each.dtype.is_floating else each for each in outputs]


def keys_of(count: int) -> tuple[str, ...]:
    """How a traced function calls its outputs: TensorFlow sorts them by these. The only one is `OUTPUT_NAME`."""
    return (OUTPUT_NAME,) if count == 1 else tuple(f"output_{place:03}" for place in range(count))


class Answers:
    """What both kinds of models share: answering a NumPy batch, and being traced for a converter."""

    fixed_batch: int | None = None

    def answer(self, images: tf.Tensor) -> tf.Tensor:
        """Logits, float32 (n, classes), of normalized float32 images (n, height, width, channels)."""
        raise NotImplementedError

    def answers(self, images: tf.Tensor) -> list[tf.Tensor]:
        """Every output, of normalized float32 images (n, height, width, channels); a classifier's logits alone."""
        return [self.answer(images)]

    def outputs(self, batch: NDArray[np.float32]) -> Outputs:
        """An array for each output, of normalized float32 images (n, channels, height, width)."""
        size = self.fixed_batch or max(len(batch), 1)
        pieces = [batch[start : start + size] for start in range(0, len(batch), size)]
        answers = [self._piece(piece, size) for piece in pieces]
        return tuple(np.concatenate(each) for each in zip(*answers, strict=True))

    def logits(self, batch: NDArray[np.float32]) -> Logits:
        """A classifier's logits, float32 (n, classes), of normalized float32 images (n, channels, height, width)."""
        return self.outputs(batch)[0]

    def _piece(self, piece: NDArray[np.float32], size: int) -> Outputs:
        if self.fixed_batch and len(piece) < size:  # the last one: filled up, and cut again
            filled = np.concatenate([piece, np.zeros((size - len(piece), *piece.shape[1:]), np.float32)])
            return tuple(each[: len(piece)] for each in self._piece(filled, size))
        return tuple(each.numpy() for each in self._function(tf.constant(piece.transpose(0, 2, 3, 1))))

    @cached_property
    def _function(self) -> Callable[[tf.Tensor], list[tf.Tensor]]:
        return tf.function(self.answers, reduce_retracing=True)  # type: ignore[no-any-return]

    def traced(self, batch: int | None, shape: Sequence[int | None]) -> Any:
        """A concrete function of one batch size, or of any: the outputs by `keys_of` of `input`, NHWC, whose images are
        of `shape` (height, width, channels).
        """
        spec = tf.TensorSpec([self.fixed_batch or batch, *shape], tf.float32, name=INPUT_NAME)

        def serve(input: tf.Tensor) -> dict[str, tf.Tensor]:
            answers = self.answers(input)
            return dict(zip(keys_of(len(answers)), answers, strict=True))

        return tf.function(serve, input_signature=[spec]).get_concrete_function()


@dataclass(frozen=True, eq=False)
class KerasModel(Answers):
    """A Keras network that takes images as the state's preprocessing normalizes them, NHWC, and gives logits, or
    whatever else it gives.
    """

    network: keras.Model
    loader: ClassVar[str] = "edgeopt_tensorflow.model:load_keras"

    @property
    def parameter_count(self) -> int:
        """How many numbers the network has learned or may learn."""
        return int(self.network.count_params())

    def save(self, folder: Path) -> None:
        """Writes `model.keras`."""
        self.network.save(folder / _FILE)

    def answer(self, images: tf.Tensor) -> tf.Tensor:
        return self.answers(images)[0]

    def answers(self, images: tf.Tensor) -> list[tf.Tensor]:
        given = self.network(images, training=False)
        return in_single(given if isinstance(given, list | tuple) else [given])


def load_keras(folder: Path) -> KerasModel:
    """Reads what `KerasModel.save` wrote."""
    return KerasModel(keras.models.load_model(folder / _FILE, compile=False))


@dataclass(frozen=True)
class SavedModelNotes:
    """How a SavedModel is called: its signature's names, the batch it takes, and what is done before and after.

    `outputs` are those of one that is no classifier, by name, and `output` is the first of them then.
    """

    signature: str
    input: str
    output: str
    batch: int | None
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    gives: Gives
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class SavedModel(Answers):
    """A SavedModel without Keras's description: it answers and can be converted, and cannot be trained."""

    folder: Path
    notes: SavedModelNotes
    loader: ClassVar[str] = "edgeopt_tensorflow.model:load_saved_model"

    @property
    def parameter_count(self) -> int:
        """How many numbers its variables hold."""
        return sum(int(np.prod(variable.shape)) for variable in self._signature.variables)

    @property
    def fixed_batch(self) -> int | None:  # type: ignore[override]
        """The only batch that it takes, None for any."""
        return self.notes.batch

    def save(self, folder: Path) -> None:
        """Copies the folder, and says how it is called."""
        shutil.copytree(self.folder, folder / _FOLDER)
        (folder / _NOTES).write_text(json.dumps(asdict(self.notes)))

    def answer(self, images: tf.Tensor) -> tf.Tensor:
        return to_logits(tf.cast(self._given(images)[self.notes.output], tf.float32), self.notes.gives)

    def answers(self, images: tf.Tensor) -> list[tf.Tensor]:
        if not self.notes.outputs:
            return [self.answer(images)]
        given = self._given(images)
        return in_single([given[name] for name in self.notes.outputs])

    def _given(self, images: tf.Tensor) -> Any:
        scaled = images * tf.constant(self.notes.scale) + tf.constant(self.notes.offset)
        return self._signature(**{self.notes.input: scaled})

    @cached_property
    def _signature(self) -> Any:
        return self._loaded.signatures[self.notes.signature]

    @cached_property
    def _loaded(self) -> Any:
        return tf.saved_model.load(str(self.folder))  # kept: a signature does not hold its variables


def load_saved_model(folder: Path) -> SavedModel:
    """Reads what `SavedModel.save` wrote."""
    values: dict[str, Any] = json.loads((folder / _NOTES).read_text())
    notes = SavedModelNotes(**values | {name: tuple(values[name]) for name in ("scale", "offset", "outputs")})
    return SavedModel(folder / _FOLDER, notes)


def write_saved(function: Any, network: Any, notes: SavedModelNotes, folder: Path) -> None:
    """Writes a concrete function and the network that it calls as `load_saved_model` reads it."""
    kept = tf.Module()
    kept.network = network
    tf.saved_model.save(kept, str(folder / _FOLDER), signatures={notes.signature: function})
    (folder / _NOTES).write_text(json.dumps(asdict(notes)))


def to_logits(values: tf.Tensor, gives: Gives) -> tf.Tensor:
    """Logits (n, classes) of what a network gives; one value becomes the logits of two classes, 0 for the first."""
    if gives == "probabilities":
        return tf.math.log(tf.maximum(values, _SMALLEST_PROBABILITY))
    if gives == "one probability":
        inside = tf.clip_by_value(values, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
        values = tf.math.log(inside) - tf.math.log(1 - inside)
    return tf.concat([tf.zeros_like(values), values], axis=1) if gives.startswith("one") else values


def given_by(values: NDArray[np.float32]) -> Gives:
    """What the outputs (n, classes) of a network are, as far as some of them tell."""
    if values.shape[1] == 1:
        return "one probability" if ((values >= 0) & (values <= 1)).all() else "one logit"
    return "probabilities" if are_probabilities(values) else "logits"


def tensorflow_model(state: ModelState) -> Answers:
    """The state's model, which is one of this package's."""
    model: ForeignModel = state.foreign
    if not isinstance(model, Answers):
        raise ExportError(f"a {type(model).__name__} is no model of TensorFlow")
    return model


def log_of_probabilities(probabilities: Any) -> Any:
    """Logits, up to a constant of each image, of a network's probabilities; a Keras operation, which can be saved."""
    return keras.ops.log(keras.ops.maximum(probabilities, _SMALLEST_PROBABILITY))


def two_logits(value: Any, gives: Gives) -> Any:
    """The logits of two classes of a network's only output; a Keras operation, which can be saved."""
    if gives == "one probability":
        inside = keras.ops.clip(value, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
        value = keras.ops.log(inside) - keras.ops.log(1 - inside)
    return keras.ops.concatenate([keras.ops.zeros_like(value), value], axis=1)


def are_probabilities(values: NDArray[np.float32]) -> bool:
    """Whether each row is positive and sums up to one, as a softmax gives it."""
    sums = values.sum(axis=1)
    return bool(values.shape[1] > 1 and (values >= 0).all() and np.allclose(sums, 1.0, atol=1e-3))
