"""The engine: every layer at every level, from the layer on instead of from the start, until the verdict is certain.

For each batch the float network runs once; just before a layer, what is live is handed to one task a level, which runs
the rest of the network with the layer changed. Tasks run side by side, each on one thread, so the figures do not depend
on how many there are.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from edgeopt.arrays import Json
from edgeopt.files import write_aside
from edgeopt.progress import Bar, Progress
from edgeopt.sensitivity.network import Moment, Network
from edgeopt.sensitivity.scan_settings import ScanSettings
from edgeopt.sensitivity.table import Cell, Scan, Verdict
from edgeopt.sensitivity.tally import Judge, Tally, tally
from edgeopt.tasks import Classification, Task
from edgeopt.types import Change, Probe, Split, targets_of

if TYPE_CHECKING:
    from edgeopt.arrays import Outputs
    from edgeopt.preprocessing import Preprocessing

__all__ = ["ScanSettings", "ScannedImages", "scan"]

T = TypeVar("T")

_BOUNDS = 4  # a lower and an upper bound, for lost and for gained answers
_LONGEST_ROUND = 8  # batches between two looks, after which a killed scan goes on


@dataclass(frozen=True, eq=False)
class ScannedImages:
    """Images in the order in which a scan sees them, how they become inputs, and the task that judges answers."""

    split: Split
    preprocessing: Preprocessing
    batches: tuple[tuple[int, ...], ...]
    task: Task = field(default_factory=Classification)

    @staticmethod
    def drawn(
        split: Split, preprocessing: Preprocessing, settings: ScanSettings, task: Task | None = None
    ) -> ScannedImages:
        """Images of `split` in an order drawn by the seed."""
        order = np.random.default_rng(settings.seed).permutation(len(split))[: settings.images].tolist()
        size = settings.batch_size
        batches = tuple(tuple(order[start : start + size]) for start in range(0, len(order), size))
        return ScannedImages(split, preprocessing, batches, task or Classification())

    def inputs(self, batch: int) -> Tensor:
        """Inputs of a batch, float32 (n, channels, height, width)."""
        return torch.from_numpy(self.preprocessing.normalize(self.split.pixels(list(self.batches[batch]))))

    def targets(self, batch: int) -> Any:
        """The targets of a batch."""
        return targets_of(self.split)[np.asarray(self.batches[batch], dtype=np.int64)]


def scan(
    network: Network,
    probe: Probe,
    of: str,
    levels: Sequence[float],
    untouched: float,
    images: ScannedImages,
    settings: ScanSettings,
    progress: Progress,
    checkpoint: Path | None = None,
) -> Scan:
    """Measures each layer of `probe` at each of `levels`, which are sorted, the mildest first.

    Verdicts are the same with any number of workers. What is known is written to `checkpoint` now and then; a scan that
    finds it goes on from there, so it must be of a scan with the same arguments. `levels` and `untouched` are on the
    probe's scale.
    """
    with _Workers(max(1, settings.workers)) as workers, torch.inference_mode():
        reference = _reference(network, images, workers, progress)
        scanner = _Scanner(network, probe, tuple(levels), images, settings, reference, workers)
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
        images=whole.images,
        accuracy=whole.right / whole.images,
        cells=scanner.cells(),
        task=images.task.name,
    )


def _reference(network: Network, images: ScannedImages, workers: _Workers, progress: Progress) -> list[Outputs]:
    """The float network's outputs for each batch."""
    with progress.bar("answers of the float network", len(images.batches)) as bar:
        futures: list[Future[Outputs]] = []
        for batch in range(len(images.batches)):
            futures.append(workers.submit(partial(_outputs, network, images.inputs(batch))))
            bar.advance()
        return [future.result() for future in futures]


def _outputs(network: Network, inputs: Tensor) -> Outputs:
    return tuple(each.numpy() for each in network.outputs(inputs))


_Key = tuple[str, float]


class _Scanner:
    """A scan on its way."""

    def __init__(
        self,
        network: Network,
        probe: Probe,
        levels: tuple[float, ...],
        images: ScannedImages,
        settings: ScanSettings,
        reference: Sequence[Outputs],
        workers: _Workers,
    ) -> None:
        self._network, self._probe, self._levels = network, probe, levels
        self._images, self._settings, self._reference, self._workers = images, settings, reference, workers
        self._rounds = _rounds(len(images.batches), settings)
        whole = Tally()
        for batch, outputs in enumerate(reference):
            whole = whole.plus(tally(outputs, outputs, images.targets(batch), images.task))
        self._tallies: dict[_Key, Tally] = {(layer, level): Tally() for layer in probe.layers for level in levels}
        looks = max(1, len(self._tallies) * len(self._rounds) * _BOUNDS)
        error = settings.error / looks if settings.stop_early else 0.0
        self.judge = Judge(settings.measure, settings.threshold, whole, error)
        self._verdicts: dict[_Key, Verdict] = {}
        self._changes: dict[_Key, Change] = {}
        self._looks = dict.fromkeys(self._tallies, 0)  # rounds that each has run
        self._lock = threading.Lock()  # a bar is not made for several threads

    @property
    def total(self) -> int:
        """Images to run for all layers and levels, if nothing stops early."""
        return len(self._tallies) * self.judge.whole.images

    @property
    def left(self) -> int:
        """Images that are left to run, at most."""
        return sum(self.judge.whole.images - self._tallies[key].images for key in self._undecided())

    def run(self, bar: Bar, checkpoint: Path | None) -> None:
        """Runs round after round until everything is decided, or has seen all images."""
        while keys := self._active():
            left = self.left
            rounds = {key: self._rounds[self._looks[key]] for key in keys}
            for key, seen in self._seen(rounds, bar):
                self._tallies[key] = self._tallies[key].plus(seen)
            for key in keys:
                self._looks[key] += 1
            self._decide(keys)
            ran = sum(len(self._images.batches[batch]) for batches in rounds.values() for batch in batches)
            bar.advance(left - self.left - ran)  # what need not be run any more
            if checkpoint is not None:
                write_aside(checkpoint, json.dumps(self._to_json()))

    def cells(self) -> tuple[Cell, ...]:
        """All cells; those that were not run to the end are marked."""
        return tuple(self._cell(key) for key in self._tallies)

    def resume(self, checkpoint: Path | None) -> None:
        """Goes on from what an earlier, killed scan wrote."""
        if checkpoint is None or not checkpoint.exists():
            return
        for layer, level, looks, seen, verdict in json.loads(checkpoint.read_text()):
            self._tallies[layer, level], self._looks[layer, level] = Tally.from_json(seen), looks
            if verdict:
                self._verdicts[layer, level] = Verdict(verdict)

    def _to_json(self) -> Json:
        return [
            [*key, self._looks[key], seen.to_json(), self._verdicts.get(key, Verdict.NONE)]
            for key, seen in self._tallies.items()
        ]

    def _undecided(self) -> list[_Key]:
        """Layers and levels that may still have to be run."""
        left = [key for key, looks in self._looks.items() if looks < len(self._rounds)]
        return [key for key in left if not (self._settings.stop_early and key in self._verdicts)]

    def _active(self) -> list[_Key]:
        """What is run next: every level a first time, then of each layer the harshest that may still pass.

        Milder ones only matter when that one fails.
        """
        keys = self._undecided()
        if not self._settings.stop_early or self._settings.threshold is None:
            return keys
        harshest = dict(keys)  # the last one of each layer, as levels are sorted
        return [key for key in keys if self._looks[key] == 0 or harshest[key[0]] == key[1]]

    def _decide(self, keys: Sequence[_Key]) -> None:
        """Notes the verdicts that are certain now; a level milder than one that passes changes no recommendation."""
        for key in keys:
            verdict = self.judge.verdict(self._tallies[key])
            if verdict is not Verdict.NONE:
                self._verdicts[key] = verdict
        if not self._settings.stop_early:
            return
        for layer in self._probe.layers:
            passes = [
                place
                for place, level in enumerate(self._levels)
                if self._verdicts.get((layer, level)) is Verdict.PASSES
            ]
            for level in self._levels[: max(passes, default=0)]:
                self._verdicts.setdefault((layer, level), Verdict.SKIPPED)
        for key in [key for key in self._changes if key in self._verdicts]:
            del self._changes[key]

    def _seen(self, rounds: Mapping[_Key, range], bar: Bar) -> Iterator[tuple[_Key, Tally]]:
        """The tallies of each layer and level for some batches, always in the same order."""
        futures: list[tuple[_Key, Future[Tally]]] = []
        for batch in sorted({batch for batches in rounds.values() for batch in batches}):
            by_layer: dict[str, list[_Key]] = {}
            for key in (key for key, batches in rounds.items() if batch in batches):
                by_layer.setdefault(key[0], []).append(key)
            for moment in self._network.walk(self._images.inputs(batch), by_layer):
                futures += [
                    (key, self._workers.submit(self._task(moment, key, batch, bar)))
                    for key in by_layer[moment.layer.name]
                ]
                del moment  # the last reference to a batch's values must be a task's
        for key, future in futures:
            yield key, future.result()

    def _task(self, moment: Moment, key: _Key, batch: int, bar: Bar) -> Callable[[], Tally]:
        if key not in self._changes:
            self._changes[key] = self._probe.change(*key)
        change, targets, reference = self._changes[key], self._images.targets(batch), self._reference[batch]

        def run() -> Tally:
            outputs = tuple(each.numpy() for each in self._network.outputs_from(moment, change))
            with self._lock:
                bar.advance(len(targets))
            return tally(outputs, reference, targets, self._images.task)

        return run

    def _cell(self, key: _Key) -> Cell:
        seen = self._tallies[key]
        least, most = self.judge.bounds(seen)
        return Cell(*key, self.judge.score(seen), least, most, seen.images, self._verdicts.get(key, Verdict.NONE))


def _rounds(batches: int, settings: ScanSettings) -> tuple[range, ...]:
    """The batches to run before each look. Rounds grow, because each look costs some certainty."""
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
