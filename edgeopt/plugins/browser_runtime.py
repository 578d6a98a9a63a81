"""What a page needs to open the files of an exporter by itself. Light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BrowserRuntime:
    """JavaScript and WebAssembly that open files in a page.

    `files` are all of it by name, each its content or where that stands. `module` is the one of them to import: its
    `start(threads)` makes the runtime ready, and its `open(buffer)` opens a file and gives an object whose
    `run(values, shape)` returns a typed array for each output, in the order of the card, and whose `close()` frees it;
    both are asynchronous. `notice` names what it is made of, with the licences.
    """

    module: str
    files: Mapping[str, Path | bytes]
    notice: str
