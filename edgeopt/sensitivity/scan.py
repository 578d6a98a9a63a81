"""The engine: every layer at every level, from the layer on instead of from the start, until the verdict is certain.

For each batch the float network runs once; just before a layer, what is live is handed to one task a level, which runs the
rest of the network with the layer changed. Tasks run side by side, each on one thread, so the figures do not depend on how many
there are.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from edgeopt.progress import Bar, Progress
from edgeopt.sensitivity.network import Moment, Network
from edgeopt.sensitivity.settings import ScanSettings
from edgeopt.sensitivity.table import Cell, Scan, Verdict
from edgeopt.sensitivity.tally import Judge, Tally, tally
from edgeopt.store import write_aside
from edgeopt.types import Change, Json, Probe, Split

if TYPE_CHECKING:
    from edgeopt.preprocessing import Preprocessing
    from edgeopt.types import Labels, Logits

__all__ = ["Pictures", "ScanSettings", "scan"]

T = TypeVar("T")

_BOUNDS = 4  # on lost and gained answers, below and above
_LONGEST_ROUND = 8  # batches between two looks, after which a killed scan goes on


@dataclass(frozen=True, eq=False)
class Pictures:
    """Labelled pictures in the order in which a scan sees them, and how they become inputs."""

    split: Split
    preprocessing: Preprocessing
    batches: tuple[tuple[int, ...], ...]

    @staticmethod
    def drawn(split: Split, preprocessing: Preprocessing, settings: ScanSettings) -> Pictures:
        """Pictures of `split` in an order drawn by the seed."""
        order = np.random.default_rng(settings.seed).permutation(len(split))[: settings.pictures].tolist()
        size = settings.batch_size
        return Pictures(
            split, preprocessing, tuple(tuple(order[start : start + size]) for start in range(0, len(order), size))
        )

    def inputs(self, batch: int) -> Tensor:
        """Inputs of a batch, float32 (n, 3, height, width)."""
        return torch.from_numpy(self.preprocessing.normalize(self.split.pixels(list(self.batches[batch]))))

    def labels(self, batch: int) -> Labels:
        """Labels of a batch, int64 (n,)."""
        return self.split.labels[list(self.batches[batch])]


def scan(
    network: Network,
    probe: Probe,
    of: str,
    levels: Sequence[float],
    untouched: float,
    pictures: Pictures,
    settings: ScanSettings,
    progress: Progress,
    checkpoint: Path | None = None,
) -> Scan:
    """Measures each layer of `probe` at each of `levels`, which are sorted, the mildest first.

    Verdicts are the same with any number of workers. What is known is written to `checkpoint` now and then; a scan that finds
    it goes on from there, so it must be of a scan with the same arguments. `levels` and `untouched` are on the probe's scale.
    """
    with _Workers(max(1, settings.workers)) as workers, torch.inference_mode():
        reference = _reference(network, pictures, workers, progress)
        scanner = _Scanner(network, probe, tuple(levels), pictures, settings, reference, workers)
        scanner.resume(checkpoint)
        with progress.bar(f"sensitivity to {of}", scanner.total) as bar:
            bar.advance(scanner.total - scanner.left)
            scanner.run(bar, checkpoint)
    whole = scanner.judge.whole
    return Scan(
        of=of,
        measure=settings.measure,
        threshold=settings.threshold,
        error=settings.error if settings.stop_early else 0.0,
        untouched=untouched,
        pictures=whole.pictures,
        accuracy=whole.right / whole.pictures,
        cells=scanner.cells(),
    )


def _reference(network: Network, pictures: Pictures, workers: _Workers, progress: Progress) -> list[Logits]:
    """The float network's logits of each batch."""
    with progress.bar("answers of the float network", len(pictures.batches)) as bar:
        futures: list[Future[Logits]] = []
        for batch in range(len(pictures.batches)):
            futures.append(workers.submit(partial(_logits, network, pictures.inputs(batch))))
            bar.advance()
        return [future.result() for future in futures]


def _logits(network: Network, inputs: Tensor) -> Logits:
    logits: Logits = network.logits(inputs).numpy()
    return logits


_Key = tuple[str, float]


class _Scanner:
    """A scan on its way."""

    def __init__(
        self,
        network: Network,
        probe: Probe,
        levels: tuple[float, ...],
        pictures: Pictures,
        settings: ScanSettings,
        reference: Sequence[Logits],
        workers: _Workers,
    ) -> None:
        self._network, self._probe, self._levels = network, probe, levels
        self._pictures, self._settings, self._reference, self._workers = pictures, settings, reference, workers
        self._rounds = _rounds(len(pictures.batches), settings)
        whole = Tally()
        for batch, logits in enumerate(reference):
            whole = whole.plus(tally(logits, logits, pictures.labels(batch)))
        self._tallies: dict[_Key, Tally] = {(layer, level): Tally() for layer in probe.layers for level in levels}
        looks = max(1, len(self._tallies) * len(self._rounds) * _BOUNDS)
        error = settings.error / looks if settings.stop_early else 0.0
        self.judge = Judge(settings.measure, settings.threshold, whole, error)
        self._verdicts: dict[_Key, Verdict] = {}
        self._changes: dict[_Key, Change] = {}
        self._done = 0  # batches
        self._lock = threading.Lock()  # a bar is not made for several threads

    @property
    def total(self) -> int:
        """Pictures to run for all layers and levels, if nothing stops early."""
        return len(self._tallies) * self.judge.whole.pictures

    @property
    def left(self) -> int:
        """Pictures that are left to run, at most."""
        return sum(self.judge.whole.pictures - self._tallies[key].pictures for key in self._open())

    def run(self, bar: Bar, checkpoint: Path | None) -> None:
        """Runs round after round until everything is decided, or has seen all pictures."""
        for batches in self._rounds:
            if batches.stop <= self._done:
                continue
            open_keys = self._open()
            if not open_keys:
                break
            left = self.left
            for key, seen in self._seen(batches, open_keys, bar):
                self._tallies[key] = self._tallies[key].plus(seen)
            self._done = batches.stop
            self._decide(open_keys)
            ran = len(open_keys) * sum(len(self._pictures.batches[batch]) for batch in batches)
            bar.advance(left - self.left - ran)  # what nobody has to run any more
            if checkpoint is not None:
                write_aside(checkpoint, json.dumps(self._to_json()))

    def cells(self) -> tuple[Cell, ...]:
        """All cells, with what was not run to the end marked."""
        return tuple(self._cell(key) for key in self._tallies)

    def resume(self, checkpoint: Path | None) -> None:
        """Goes on from what an earlier, killed scan wrote."""
        if checkpoint is None or not checkpoint.exists():
            return
        values: dict[str, Json] = json.loads(checkpoint.read_text())
        self._done = values["batches"]
        for layer, level, seen, verdict in values["cells"]:
            self._tallies[layer, level] = Tally.from_json(seen)
            if verdict:
                self._verdicts[layer, level] = Verdict(verdict)

    def _to_json(self) -> Json:
        cells = [[*key, seen.to_json(), self._verdicts.get(key, Verdict.NONE)] for key, seen in self._tallies.items()]
        return {"batches": self._done, "cells": cells}

    def _open(self) -> list[_Key]:
        """Layers and levels that still have to be run."""
        if self._done >= len(self._pictures.batches):
            return []
        return [key for key in self._tallies if not (self._settings.stop_early and key in self._verdicts)]

    def _decide(self, keys: Sequence[_Key]) -> None:
        """Notes the verdicts that are certain now; a level harsher than one that fails changes no recommendation."""
        for key in keys:
            verdict = self.judge.verdict(self._tallies[key])
            if verdict is not Verdict.NONE:
                self._verdicts[key] = verdict
        for layer in self._probe.layers:
            verdicts = [self._verdicts.get((layer, level)) for level in self._levels]
            if self._settings.stop_early and Verdict.FAILS in verdicts:
                for level in self._levels[verdicts.index(Verdict.FAILS) + 1 :]:
                    self._verdicts.setdefault((layer, level), Verdict.SKIPPED)
        for key in [key for key in self._changes if key in self._verdicts and self._settings.stop_early]:
            del self._changes[key]

    def _seen(self, batches: range, keys: Sequence[_Key], bar: Bar) -> Iterator[tuple[_Key, Tally]]:
        """What each layer and level gives for some batches, in one order whatever finishes first."""
        by_layer: dict[str, list[float]] = {}
        for layer, level in keys:
            by_layer.setdefault(layer, []).append(level)
        futures: list[tuple[_Key, Future[Tally]]] = []
        for batch in batches:
            for moment in self._network.walk(self._pictures.inputs(batch), by_layer):
                for level in by_layer[moment.layer.name]:
                    key = moment.layer.name, level
                    futures.append((key, self._workers.submit(self._task(moment, key, batch, bar))))
                del moment  # the last reference to a batch's values must be a task's
        for key, future in futures:
            yield key, future.result()

    def _task(self, moment: Moment, key: _Key, batch: int, bar: Bar) -> Callable[[], Tally]:
        if key not in self._changes:
            self._changes[key] = self._probe.change(*key)
        change, labels, reference = self._changes[key], self._pictures.labels(batch), self._reference[batch]

        def run() -> Tally:
            logits: Logits = self._network.logits_from(moment, change).numpy()
            with self._lock:
                bar.advance(len(labels))
            return tally(logits, reference, labels)

        return run

    def _cell(self, key: _Key) -> Cell:
        seen = self._tallies[key]
        least, most = self.judge.bounds(seen)
        return Cell(*key, self.judge.score(seen), least, most, seen.pictures, self._verdicts.get(key, Verdict.NONE))


def _rounds(batches: int, settings: ScanSettings) -> tuple[range, ...]:
    """Which batches are run before each look: more of them the more have been, as each look costs some certainty."""
    rounds, start = [], 0
    while start < batches:
        size = min(max(1, start // 2), _LONGEST_ROUND) if settings.stop_early else _LONGEST_ROUND
        rounds.append(range(start, min(start + size, batches)))
        start += size
    return tuple(rounds)


class _Workers:
    """Threads that each compute on one core, with a bound on the work that waits, as waiting work holds values."""

    def __init__(self, count: int) -> None:
        self._threads_before = torch.get_num_threads()
        self._room = threading.Semaphore(2 * count)
        self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))

    def __enter__(self) -> _Workers:
        torch.set_num_threads(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads_before)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Starts `work` as soon as there is room, and waits for that."""
        self._room.acquire()

        def run() -> T:
            try:
                with torch.inference_mode():
                    return work()
            finally:
                self._room.release()

        return self._pool.submit(run)
