"""Lines of JSON to whoever started this process, and lines from there; it ends when they do."""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

Message = dict[str, Any]


class AgentError(Exception):
    """What cannot be done on the device: its `kind`, and the words of whoever refused."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Output:
    """Writes messages to what was the standard output; what libraries print goes to standard error instead."""

    def __init__(self) -> None:
        self._stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Writes one message at once."""
        with self._lock:
            self._stream.write(json.dumps(message) + "\n")
            self._stream.flush()


def input_lines(leave: Callable[[], None], silence_s: float | None = None) -> Iterator[str]:
    """The lines of standard input.

    `leave` is called, on another thread and whatever this process does, when it ends or says nothing for `silence_s`:
    whoever started this process is gone then. It must not return.
    """
    lines: queue.Queue[str] = queue.Queue()
    heard = [time.monotonic()]

    def watch() -> None:
        rest = b""
        while piece := os.read(0, 65536):  # not sys.stdin, whose lock a thread may not hold when Python ends
            heard[0] = time.monotonic()
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                lines.put(line.decode())
        leave()

    def listen(limit_s: float) -> None:
        while time.monotonic() - heard[0] < limit_s:
            time.sleep(min(1.0, limit_s / 4))
        leave()

    threading.Thread(target=watch, daemon=True).start()
    if silence_s is not None:
        threading.Thread(target=listen, args=(silence_s,), daemon=True).start()
    return iter(lines.get, None)
