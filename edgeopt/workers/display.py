"""Shows a run while it works: a bar for each worker with the time left, or plain lines where there is no terminal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from edgeopt.arrays import Json


class Display:
    """Listens to the events of workers; several threads may call it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._tasks: dict[str, TaskID] = {}
        self._labels: dict[str, str] = {}
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[text]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, worker: str, event: dict[str, Json]) -> None:
        """One event of a worker."""
        with self._lock:
            match event["event"]:
                case "stage":
                    self._labels[worker] = event["label"]
                case "stage-end":
                    self._remove(worker)
                    self.say(f"{self._labels.pop(worker, event['name'])}", event["seconds"])
                case "bar":
                    self._remove(worker)
                    self._tasks[worker] = self._progress.add_task(event["label"], total=event["total"], text="")
                case "advance" if worker in self._tasks:
                    self._progress.update(self._tasks[worker], advance=event["steps"], text=event["text"] or "")
                case "bar-end":
                    self._remove(worker)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[str], None]]:
        """A bar with so many steps, each told with a few words."""
        self(label, {"event": "bar", "label": label, "total": total})
        try:
            yield lambda text: self(label, {"event": "advance", "steps": 1, "text": text})
        finally:
            self(label, {"event": "bar-end"})

    def say(self, label: str, seconds: float | None = None) -> None:
        """A line that stays: something is finished."""
        took = f"  [dim]{seconds:.1f} s[/]" if seconds is not None else ""
        self._console.print(f"[green]done[/]  {label}{took}", highlight=False)

    def _remove(self, worker: str) -> None:
        if worker in self._tasks:
            self._progress.remove_task(self._tasks.pop(worker))
