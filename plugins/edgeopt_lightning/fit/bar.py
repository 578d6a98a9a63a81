"""The progress of a training: a bar over the batches of all epochs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from edgeopt.plugins import Bar, Progress, ScoreKind
from edgeopt_lightning.fit.history import History

_SAY_SECONDS = 0.5


class TrainingBar:
    """A bar over `epochs` of so many `batches` each; `kind` is the score that stands beside it."""

    def __init__(self, progress: Progress, label: str, kind: ScoreKind, epochs: int, batches: int) -> None:
        self._progress = progress
        self._label = label
        self._kind = kind
        self._epochs = epochs
        self._batches = batches
        self._bar: Bar | None = None
        self._said = 0.0

    @contextmanager
    def shown(self, done: int) -> Iterator[None]:
        """Within, the bar is shown, the first `done` epochs as done."""
        with self._progress.bar(self._label, self._epochs * self._batches) as self._bar:
            self._bar.advance(done * self._batches)
            yield

    def advance(self, history: History, loss: Tensor) -> None:
        """One batch with this loss is done; reading the loss waits for the device, so it is said now and then only."""
        assert self._bar is not None
        self._bar.advance()
        if time.monotonic() - self._said < _SAY_SECONDS:
            return
        self._said = time.monotonic()
        text = f"epoch {history.epochs + 1}/{self._epochs}, loss {float(loss):.3f}"
        if history.validation_score:
            text += f", {self._kind.called} {self._kind.text(history.validation_score[-1])}"
        self._bar.say(text)
