"""What a run has of a bucket: results that it need not make, and a place for those that it made.

The parent of a run does all of it. Workers know nothing of buckets: some are forks, which no connection survives, and
what one of them cannot reach the next one would wait for again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING

from edgeopt.recipe.plan import Plan
from edgeopt.recipe.stage import Stage, StageKind
from edgeopt.report import figures
from edgeopt.workers.bucket import Bucket, BucketError, DamagedError, Moved
from edgeopt.workers.layout import Record
from edgeopt.workers.pool import Listener
from edgeopt.workers.store import Result, Store
from edgeopt.workers.worker import Event

if TYPE_CHECKING:  # rich is loaded when something is shown
    from rich.console import Console

    from edgeopt.workers.display import Display

SMALL_BYTES = 32_000_000
"""Up to this size, each result goes into a bucket."""

BYTES_A_SECOND = 20_000_000
"""A larger one goes there if it took longer to make than to move at this rate; a cache of pixels seldom does."""

_ASKED_AT_ONCE = 8  # an answer is short, and comes from afar
_LAST = (StageKind.DEVICE, StageKind.REPORT)  # the end of a run takes them back where a device failed


class Exchange:
    """The results of a run in its store and in a bucket; `key` gives that of a stage.

    What is missing is fetched when it is asked for. What was made is put by a thread while the run goes on, and the end
    of the block waits for it. A bucket that fails is said once, and the run goes on without it.
    """

    def __init__(self, bucket: Bucket, plan: Plan, store: Store, key: Callable[[Stage], str], console: Console) -> None:
        self._bucket, self._plan, self._store, self._key, self._console = bucket, plan, store, key, console
        self._made: set[str] = set()
        self._there: set[str] = set()
        self._not_there: set[str] = set()
        self._not_worth: list[str] = []
        self._put_bytes: list[int] = []
        self._display: Display | None = None
        self._is_over = False
        self._waiting: SimpleQueue[Stage | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._put_all, daemon=True)  # half of a transfer is no result

    def __enter__(self) -> Exchange:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = kind is not None and not issubclass(kind, Exception)  # interrupted
        self._waiting.put(None)
        if self._is_over:
            return
        with self._shown() as display:
            self._display = display
            self._thread.join()
            if self._put_bytes:
                count, size = len(self._put_bytes), figures.size(sum(self._put_bytes))
                display.say(f"{count} result{'s' * (count > 1)} put into the bucket, {size}")
        for label in self._not_worth:
            self._say(f"{label}: larger than it is worth to move, and not put into the bucket")

    def found(self, stage: Stage) -> Result | None:
        """The result of a stage, from the store or else from the bucket, which has nothing for a run that is fresh."""
        key = self._key(stage)
        found = self._store.find(key)
        if found or key in self._not_there or self._store.not_before or self._bucket.given_up:
            return found
        with self._shown() as display:
            moved = _bar(lambda: display, stage.label)
            try:
                found = self._store.bring(key, lambda folder: self._bucket.fetch(key, folder, moved))
            except DamagedError as error:
                self._say(f"{stage.label}: the bucket's result is damaged, and is made anew: {error}")
            except BucketError as error:
                self._lose(error)
            (self._there if found else self._not_there).add(key)
            if found:
                display.say(f"{stage.label}, from the bucket")
        return found

    def listener(self, display: Display) -> Listener:
        """Shows what workers do, and hears what they made."""

        def listen(worker: str, event: Event) -> None:
            display(worker, event)
            if event["event"] == "stage-end":
                self.made(self._plan.stages[event["name"]])

        return listen

    def made(self, stage: Stage) -> None:
        """This run made the result of a stage, in the place of whatever the bucket has."""
        self._made.add(self._key(stage))
        if stage.kind not in _LAST:
            self._waiting.put(stage)

    def complete(self) -> None:
        """Puts what is in the store at the end of a run and not in the bucket, whoever made it."""
        found = [stage for stage in self._plan.stages.values() if self._store.find(self._key(stage))]
        others = [stage for stage in found if self._key(stage) not in self._there | self._made]
        last = [stage for stage in found if self._key(stage) in self._made and stage.kind in _LAST]
        with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
            is_there = list(pool.map(self._has, others))
        for stage in (*last, *(stage for stage, there in zip(others, is_there, strict=True) if not there)):
            self._waiting.put(stage)

    def _has(self, stage: Stage) -> bool:
        if self._store.not_before or self._bucket.given_up:
            return False
        try:
            return self._bucket.has(self._key(stage))
        except BucketError as error:
            self._lose(error)
            return False

    def _put_all(self) -> None:
        while (stage := self._waiting.get()) and not self._is_over:
            if not self._bucket.given_up:
                try:
                    self._put(stage)
                except BucketError as error:
                    self._lose(error)
                except OSError as error:
                    self._say(f"{stage.label}: it cannot be read here, and is not put into the bucket: {error}")

    def _put(self, stage: Stage) -> None:
        found = self._store.find(key := self._key(stage))
        record = Record.of(found.folder) if found else None
        if found is None or record is None or not record.is_portable:
            return  # another run has taken it away, or an earlier version made it
        if record.size_bytes > max(SMALL_BYTES, BYTES_A_SECOND * record.seconds):
            self._not_worth.append(stage.label)
            return
        self._bucket.put(key, found.folder, _bar(lambda: self._display, stage.label))
        self._put_bytes.append(record.size_bytes)

    def _lose(self, error: BucketError) -> None:
        if self._bucket.give_up(reason := f"{error.problems[0].message}; the run goes on without it"):
            self._say(reason)

    def _say(self, text: str) -> None:
        self._console.print(f"note  {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def _shown(self) -> Iterator[Display]:
        from edgeopt.workers.display import Display  # rich

        with Display(self._console) as display:
            yield display


def _bar(shown: Callable[[], Display | None], label: str) -> Moved:
    """A transfer as a bar, from when on somebody shows it."""
    done, is_shown = 0, False

    def moved(count: int, total: int) -> None:
        nonlocal done, is_shown
        done += count
        if (display := shown()) is None:
            return
        if not is_shown:
            display(label, {"event": "bar", "label": label, "total": total})
            count, is_shown = done, True
        display(label, {"event": "advance", "steps": count, "text": None})
        if done >= total:
            display(label, {"event": "bar-end"})

    return moved
