"""A process that has one file open, and nothing else: it answers for images, or is timed in turns."""

from __future__ import annotations

import errno
import json
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from edgeopt.arrays import as_outputs, joined, normalized, of_images, save_outputs
from edgeopt.devices.agent.messages import Message, Output, input_lines
from edgeopt.measure.calls import Called, answer_turns


def child() -> int:
    """Does what the first line of standard input says, until standard input ends; the exit code."""
    output = Output()
    lines = input_lines(lambda: os._exit(1))
    task: Message = json.loads(next(lines))
    try:
        if task["cores"] and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, task["cores"])  # before the runtime makes its threads
        _work(task, lines, output.send)
    except Exception as error:  # a runtime's own errors share no base class
        traceback.print_exc()
        text = str(error).strip() or type(error).__name__
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        output.send({"event": "error", "message": text, "full": full})
        return 1
    return 0


def _work(task: Message, lines: Iterator[str], send: Callable[[Message], None]) -> None:
    import numpy as np  # in the environment of the runtime; the session runs without

    module, _, function = task["opener"].partition(":")
    opener = import_module(module)
    prepare = getattr(opener, "prepare", None)
    if prepare is not None:
        prepare(task["file"])  # so that the memory of the file is its own, not the runtime's code

    @contextmanager
    def opened() -> Iterator[Called]:
        file = getattr(opener, function)(Path(task["file"]), task["threads"])
        try:
            yield file
        finally:
            close = getattr(file, "close", None)
            if close is not None:
                close()

    def batch(start: int) -> Any:
        return _fed(task, images[[index % len(images) for index in range(start, start + task["batch_size"])]])

    if task.get("whole"):
        with opened() as file:
            send({"event": "whole", "times_ms": _whole(task, file)})
        return
    images = np.load(task["images"], mmap_mode="r")
    if not task["answers"]:
        answer_turns(opened, batch(0), task["warmup"], lines, send)
        return
    with opened() as file:
        rows = []
        for start in range(0, len(images), task["batch_size"]):
            rows.append(as_outputs(file.predict(batch(start))))
            send({"event": "answered", "images": min(start + task["batch_size"], len(images))})
    pending = Path(task["answers"] + ".part")
    save_outputs(pending, of_images(joined(rows), slice(len(images))))
    pending.replace(task["answers"])


def _fed(task: Message, pixels: Any) -> Any:
    """What the file takes for uint8 (n, height, width, channels)."""
    return pixels if task["scale"] is None else normalized(pixels, tuple(task["scale"]), tuple(task["offset"]))


def _whole(task: Message, file: Any) -> list[tuple[float, ...]]:
    from edgeopt.measure.whole_way import whole_way  # with Pillow, in environments for this alone

    asked, image, way = task["whole"], Path(task["whole"]["image"]), task["way"]
    answers = import_module(way["answering"]).answers
    return whole_way(
        image.read_bytes(),
        image.name,
        way["preprocessing"],
        lambda pixels: _fed(task, pixels),
        file,
        lambda outputs: answers(outputs, way["decision"]),
        asked["warmup"],
        asked["runs"],
    )
