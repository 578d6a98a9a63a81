"""The pass `keras-train`: fits a Keras network on the training split.

Of its epochs it keeps one as `edgeopt.plugins.kept_epoch` says.

A training that was killed goes on at its last whole epoch and ends with the same weights as one that was not killed.
"""

from __future__ import annotations

import io
import json
import logging
import math
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.files import write_aside
from edgeopt.networks.capture import program_outputs
from edgeopt.plugins import (
    Bar,
    Curve,
    DataError,
    Json,
    ModelState,
    NothingChangedError,
    PassContext,
    PassRecord,
    PausedError,
    Score,
    Silent,
    TrainingError,
    digest,
    epoch_rank,
    first_line,
    prefers_epoch,
    to_json,
)
from edgeopt_tensorflow.batches import Epoch
from edgeopt_tensorflow.heads import head_of, layers_of
from edgeopt_tensorflow.model import KerasModel, load_keras
from edgeopt_tensorflow.runtime import keras, tf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt_tensorflow.options import KerasTrainOptions

_ONE_CYCLE_WARMUP = 0.3
_ONE_CYCLE_START = 1 / 25  # of the highest learning rate
_CHECKPOINT = "keras-train.npz"


@dataclass
class History:
    """What a training has done so far; lists hold a value for each epoch, `best_epoch` counts from 0.

    `least_accuracy` is the best accuracy but its standard error.
    """

    training_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    best_epoch: int = 0
    least_accuracy: float = 0.0
    stopped: str = ""

    @property
    def epochs(self) -> int:
        """How many epochs are done."""
        return len(self.training_loss)

    def last(self) -> dict[str, float]:
        """The figures of the last epoch."""
        return {
            "training loss": self.training_loss[-1],
            "validation loss": self.validation_loss[-1],
            "validation accuracy": self.validation_accuracy[-1],
            "learning rate": self.learning_rate[-1],
        }

    def is_kept(self, error: float, *, settles: bool) -> bool:
        """Whether the last epoch is rather to be kept than the best before it: `error` is the standard error of its
        accuracy, and `settles` says that the learning rate comes down to the end.
        """
        self.least_accuracy = max(self.least_accuracy, self.validation_accuracy[-1] - error)
        ranks = [epoch_rank(*each) for each in zip(self.validation_accuracy, self.validation_loss, strict=True)]
        best = ranks[self.best_epoch] if self.epochs > 1 else None
        return prefers_epoch(ranks[-1], best, self.least_accuracy, settles=settles)


def train_model(state: ModelState, options: KerasTrainOptions, context: PassContext) -> ModelState:
    """A state with a trained copy of the network.

    Raises `PausedError` where the context asks for it, `TrainingError` for a SavedModel and when the loss is no longer
    finite, `NothingChangedError` when nothing is left to train, `DataError` when there are too few images.
    """
    if not isinstance(state.foreign, KerasModel):
        raise TrainingError(
            "a SavedModel without Keras's description cannot be trained",
            hint="give the .keras file that it was made from",
        )
    if len(context.data.train) < 2:
        raise DataError(f"there are {len(context.data.train)} training images; 2 are the least")
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(context.seed % 2**31)
    model = _copy(state.foreign)
    training = _Training(state, model, options, context)
    training.resume()
    training.run()
    return state.after(training.record(), model)


class _Training:
    """One training of `model`, in place."""

    def __init__(self, state: ModelState, model: KerasModel, options: KerasTrainOptions, context: PassContext) -> None:
        self.model, self.network = model, model.network
        self.history = History()
        self._state, self._options, self._context = state, options, context
        self._epochs = context.budget.of(context.budget.epochs, options.epochs)
        self._frozen = _freeze(self.network, options.freeze == "backbone")
        self._norms = _set_momentum(self.network, options.batch_norm_momentum)
        trainable = self.network.trainable_variables
        if not trainable:
            raise NothingChangedError("the network has no weights to train", hint="leave out this pass")
        self._optimizer = _optimizer(options, trainable)
        self._best = [np.asarray(each) for each in self.network.variables]
        self._steps = len(self._epoch(0))
        self._file = context.work_dir / _CHECKPOINT
        shapes = [[each.path, list(each.shape)] for each in self.network.variables]
        self._fingerprint = digest(
            [to_json(options), context.data.fingerprint, context.seed, self._epochs, context.budget.batches, shapes]
        )
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=options.label_smoothing)
        # XLA would compile for longer than a short training lasts, and does not promise the same sums
        self.network.compile(self._optimizer, loss, jit_compile=False)

    def run(self) -> None:
        """The epochs that are left; the network ends with the weights of the best one."""
        total = (self._epochs - self.history.epochs) * self._steps
        if not (self.history.stopped or self._is_paused):
            bar_shown = self._context.progress.bar("keras-train", total)
            with bar_shown as bar, self._context.tracked_part("keras-train") as tracked:
                while not (self.history.stopped or self._is_paused):
                    self._train_epoch(bar)
                    tracked.log(self.history.last(), self.history.epochs)
        if self._is_paused:
            epochs = self._context.pause_epochs or 0
            raise PausedError(epochs, max(self.history.validation_accuracy[:epochs]))
        _assign(self.network.variables, self._best)

    @property
    def _is_paused(self) -> bool:
        pause = self._context.pause_epochs
        return not self.history.stopped and pause is not None and self.history.epochs >= pause

    def record(self) -> PassRecord:
        """What the training came to, for the report."""
        history, best = self.history, self.history.best_epoch
        trainable = sum(int(np.prod(each.shape)) for each in self.network.trainable_variables)
        facts: dict[str, Json] = {
            "best_epoch": best + 1,
            "validation_accuracy": history.validation_accuracy[best],
            "validation_loss": history.validation_loss[best],
            "epochs_run": history.epochs,
            "stopped": history.stopped,
            "optimizer": self._options.optimizer,
            "schedule": self._options.schedule,
            "batch_size": self._options.batch_size,
            "batch_norms": self._norms,
            "trainable_parameters": trainable,
            "frozen_layers": self._frozen,
        }
        epochs = tuple(float(epoch + 1) for epoch in range(history.epochs))
        curves = (
            Curve("training loss", epochs, tuple(history.training_loss), y_label="loss"),
            Curve("validation loss", epochs, tuple(history.validation_loss), y_label="loss"),
            Curve("validation accuracy", epochs, tuple(history.validation_accuracy), y_label="accuracy"),
            Curve("learning rate", epochs, tuple(history.learning_rate), y_label="learning rate"),
        )
        return PassRecord("keras-train", facts, curves)

    # -- one epoch ---------------------------------------------------------------------------------------------------

    def _train_epoch(self, bar: Bar) -> None:
        history, epoch = self.history, self.history.epochs
        self._seed_dropout(epoch)
        history.learning_rate.append(self._rate(epoch * self._steps))
        loss = self._fit(epoch, bar)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} in epoch {epoch + 1}",
                hint=f"try a smaller learning_rate than {self._options.learning_rate:g}",
            )
        history.training_loss.append(loss)
        score = self._validate()
        if history.is_kept(score.standard_error, settles=self._options.settles):
            history.best_epoch = epoch
            self._best = [np.asarray(each) for each in self.network.variables]
        patience = self._options.patience
        if history.epochs == self._epochs:
            history.stopped = "all epochs done"
        elif patience is not None and epoch - history.best_epoch >= patience:
            history.stopped = f"no better epoch in {patience}"
        bar.say(f"epoch {epoch + 1}: loss {loss:.3f}, validation {history.validation_accuracy[-1]:.1%}")
        self._write()

    def _fit(self, epoch: int, bar: Bar) -> float:
        def before(batch: int, **_: Any) -> None:
            self._optimizer.learning_rate.assign(self._rate(epoch * self._steps + batch))

        def after(_batch: int, **_: Any) -> None:
            bar.advance()

        every_batch = keras.callbacks.LambdaCallback(on_train_batch_begin=before, on_train_batch_end=after)
        done = self.network.fit(self._epoch(epoch), epochs=1, verbose=0, shuffle=False, callbacks=[every_batch])
        return float(done.history["loss"][0])

    def _epoch(self, epoch: int) -> Epoch:
        context = self._context
        return Epoch(context.data, self._options.batch_size, context.seed, epoch, context.budget.batches)

    def _validate(self) -> Score:
        split = self._context.data.validation
        (logits,) = program_outputs(self._state.after(PassRecord(""), self.model), split, Silent(), "")
        shifted = logits - logits.max(axis=1, keepdims=True)
        chosen = shifted[np.arange(len(split)), split.labels]
        self.history.validation_loss.append(float((np.log(np.exp(shifted).sum(axis=1)) - chosen).mean()))
        score = self._state.task.score((logits,), split.labels)
        self.history.validation_accuracy.append(score.value)
        return score

    def _rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0.

        Source for one-cycle: L. N. Smith and N. Topin, "Super-convergence", 2018.
        """
        total, highest = self._epochs * self._steps, self._options.learning_rate
        if self._options.schedule == "constant":
            return highest
        warmup = round(_ONE_CYCLE_WARMUP * total) if self._options.schedule == "one-cycle" else 0
        if step < warmup:
            risen = _cosine(1 - step / warmup)
            return highest * (_ONE_CYCLE_START + (1 - _ONE_CYCLE_START) * risen)
        return highest * _cosine((step - warmup) / max(1, total - warmup))

    def _seed_dropout(self, epoch: int) -> None:
        """Makes every draw of an epoch (dropout, stochastic depth) follow from the seed and the epoch's number.

        The order of its batches does so too.
        """
        random = np.random.default_rng((self._context.seed, epoch))
        weights = {id(each) for each in self.network.weights}
        for each in self.network.variables:
            if id(each) not in weights and each.dtype.startswith("uint"):  # the state of a generator
                each.assign(random.integers(0, 2**31, each.shape, dtype=np.uint32))

    # -- going on after a kill ---------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Takes over what a killed training left: weights, optimizer and history."""
        saved = _read(self._file, self._fingerprint)
        if saved is not None:
            history, arrays = saved
            self.history = History(**history)
            _assign(self.network.variables, arrays["network"])
            _assign(self._optimizer.variables, arrays["optimizer"])
            self._best = arrays["best"]

    def _write(self) -> None:
        arrays = {"network": self.network.variables, "optimizer": self._optimizer.variables, "best": self._best}
        buffer = io.BytesIO()
        np.savez(
            buffer,
            allow_pickle=False,
            history=json.dumps(asdict(self.history)),
            fingerprint=self._fingerprint,
            **{
                f"{name} {index}": np.asarray(each)
                for name, values in arrays.items()
                for index, each in enumerate(values)
            },
        )
        write_aside(self._file, buffer.getvalue())


def _read(file: Path, fingerprint: str) -> tuple[dict[str, Any], dict[str, list[NDArray[Any]]]] | None:
    """The history and arrays of a checkpoint, or None when it is missing, another training's, or damaged, which the
    log says.
    """
    if not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as saved:
            if str(saved["fingerprint"]) != fingerprint:
                return None
            groups: dict[str, list[NDArray[Any]]] = {}
            for key in saved.files:
                name, _, index = key.partition(" ")
                if index:
                    groups.setdefault(name, []).append(saved[key])
            return json.loads(str(saved["history"])), groups
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:  # what NumPy raises
        text = "%s is damaged (%s): the training begins anew"
        logging.getLogger("edgeopt.tensorflow").warning(text, file, first_line(error))
        return None


def _assign(variables: Iterable[keras.Variable], values: Iterable[NDArray[Any]]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _copy(model: KerasModel) -> KerasModel:
    """A copy that shares nothing: through a file, which Keras keeps exact."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder))
        return load_keras(Path(folder))


def _optimizer(options: KerasTrainOptions, trainable: list[keras.Variable]) -> keras.optimizers.Optimizer:
    """AdamW or SGD; weight decay for weights of two and more dimensions only.

    Source for AdamW: I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """
    make: Callable[..., keras.optimizers.Optimizer] = keras.optimizers.AdamW
    arguments: dict[str, Any] = {}
    if options.optimizer == "sgd":
        make, arguments = keras.optimizers.SGD, {"momentum": options.momentum}
    optimizer = make(options.learning_rate, weight_decay=options.weight_decay, **arguments)
    optimizer.exclude_from_weight_decay(var_list=[each for each in trainable if len(each.shape) < 2])
    optimizer.build(trainable)
    return optimizer


def _freeze(network: keras.Model, is_wanted: bool) -> int:
    """Freezes all layers with weights but the last one, where wanted, and returns how many.

    Otherwise frees what an earlier pass froze, layer by layer: setting the network's own `trainable` does not reach the
    layers that it was loaded with.
    """
    layers = [layer for layer in layers_of(network) if layer.weights]
    kept = [layer for layer in layers if layer is not head_of(network)] if is_wanted else []
    for layer in layers:
        layer.trainable = layer not in kept
    return len(kept)


def _set_momentum(network: keras.Model, share: float | None) -> int:
    """Sets how much of each batch goes into BatchNorm's running statistics, and returns how many such layers there are.

    Keras Applications come with 0.01 and 0.001: a short training then evaluates with the statistics of the untrained
    network, near chance although it has learned.
    """
    norms = [layer for layer in layers_of(network) if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        if share is not None:
            layer.momentum = 1.0 - share
    return len(norms)


def _cosine(done: float) -> float:
    return (1 + math.cos(math.pi * done)) / 2
