"""The trackers of one run: opened for each part of it, and never the end of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from edgeopt.errors import first_line
from edgeopt.tracking.trackers import Identity, MLflow, TensorBoard, Tracker, Trackio, WeightsAndBiases

_KINDS: Mapping[str, Callable[[Identity, str], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
}
#: The distribution that each needs, and what brings it.
PACKAGES: Mapping[str, tuple[str, str]] = {
    "tensorboard": ("tensorboard", "edgeopt[tensorboard]"),
    "mlflow": ("mlflow-skinny", "edgeopt[mlflow]"),
    "wandb": ("wandb", "edgeopt[wandb]"),
    "trackio": ("trackio", "trackio"),  # no extra: it wants an older Pillow than the pinned set has
}

_log = logging.getLogger("edgeopt.tracking")


@dataclass(frozen=True)
class TrackedRun:
    """A run and the trackers that its recipe names; `prefix` stands before the names of its parts.

    JSON can carry it to another process.
    """

    identity: Identity
    loggers: tuple[str, ...] = ()
    prefix: str = ""

    @contextmanager
    def part(self, name: str) -> Iterator[Part]:
        """The trackers opened for one part of the run, such as a training, and closed at its end."""
        part = Part(self.prefix + name)
        for logger in self.loggers:
            part.attempt(logger, partial(part.open, logger, self.identity))
        try:
            yield part
        finally:
            for logger, tracker in list(part.opened.items()):
                part.attempt(logger, tracker.close)


@dataclass
class Part:
    """The open trackers of one part of a run, by name.

    One that fails is told of in the run's log and left: a training is not worth less because a server is away.
    `failures` says of each why.
    """

    name: str
    opened: dict[str, Tracker] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def open(self, logger: str, identity: Identity) -> None:
        """Opens one tracker."""
        self.opened[logger] = _KINDS[logger](identity, self.name)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Figures by their names in this part, at a step such as an epoch."""
        named = {f"{self.name}/{name}": value for name, value in values.items()}
        self._all(lambda tracker: tracker.log(named, step))

    def describe(self, values: Mapping[str, str]) -> None:
        """What the run was asked for, by dotted key."""
        self._all(lambda tracker: tracker.describe(values))

    def attempt(self, logger: str, act: Callable[[], object]) -> None:
        """Does something with a tracker, which is left out from then on where it fails."""
        try:
            act()
        except Exception as error:  # whatever a tracker's library raises, it is not the run's fault
            _log.warning("the logger %s failed and is left out", logger, exc_info=True)
            self.failures[logger] = first_line(error)
            self.opened.pop(logger, None)

    def _all(self, act: Callable[[Tracker], None]) -> None:
        for logger, tracker in list(self.opened.items()):
            self.attempt(logger, partial(act, tracker))
