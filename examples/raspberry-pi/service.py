"""Answers for the images of a camera or of a folder, one after another, and writes down each answer.

    python service.py model --folder incoming
    python service.py model --camera "rpicam-vid --codec mjpeg --timeout 0 --nopreview --output -"

A line of JSON an image goes to standard output, which is the journal under systemd, and with `--log` to a file that
keeps its size. Ends with 2 where the file or the arguments are wrong, and with 1 where the camera ended.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import logging.handlers
import os
import shlex
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from datetime import datetime, timezone
from pathlib import Path
from typing import Iterator, Mapping

import feed
from PIL import Image

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
MOST_BYTES = 16 << 20  # of one frame
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
LOOK_EVERY_S = 0.5

stopped = threading.Event()


class CameraEndedError(Exception):
    """The camera's program is gone."""


class Camera:
    """The newest frame of a program that writes JPEG images to its standard output, as `rpicam-vid` and `ffmpeg` do.

    A frame that came while another was being answered takes the place of the one before it: nothing piles up.
    """

    def __init__(self, command: str) -> None:
        self._program = subprocess.Popen(shlex.split(command), stdout=subprocess.PIPE)
        self._newest = b""
        self._changed = threading.Condition()
        self._has_ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def images(self) -> Iterator[tuple[str, bytes]]:
        """Each newest frame, named by its number; raises `CameraEndedError`."""
        number = 0
        try:
            while not stopped.is_set():
                with self._changed:
                    self._changed.wait_for(lambda: self._newest or self._has_ended or stopped.is_set(), LOOK_EVERY_S)
                    frame, self._newest = self._newest, b""
                if frame:
                    number += 1
                    yield f"frame {number}", frame
                elif self._has_ended:
                    raise CameraEndedError(f"the camera's program ended with {self._program.wait()}")
        finally:
            self._program.terminate()

    def _read(self) -> None:
        rest = b""
        while chunk := self._program.stdout.read1(1 << 16):
            rest += chunk
            end = rest.rfind(JPEG_END)
            start = rest.rfind(JPEG_START, 0, max(end, 0))
            if start >= 0:
                with self._changed:
                    self._newest = rest[start : end + 2]
                    self._changed.notify()
            rest = rest[end + 2 :] if end >= 0 else rest
            rest = rest if len(rest) <= MOST_BYTES else b""
        with self._changed:
            self._has_ended = True
            self._changed.notify()


class Folder:
    """The images that come into a folder. One that was answered goes to `done/`, one that is none to `failed/`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("done", "failed"):
            (path / name).mkdir(parents=True, exist_ok=True)

    def images(self) -> Iterator[tuple[str, bytes]]:
        """Each image, oldest first, once it has stopped growing."""
        sizes: dict[Path, int] = {}
        while not stopped.is_set():
            before, sizes = sizes, {}
            for path in sorted(self._waiting(), key=lambda path: path.stat().st_mtime):
                sizes[path] = path.stat().st_size
                if before.get(path) == sizes[path] and not stopped.is_set():
                    yield path.name, path.read_bytes()
            stopped.wait(LOOK_EVERY_S)

    def put_away(self, name: str, *, answered: bool) -> None:
        """Moves an image, so that it is not answered again."""
        (self.path / name).replace(self.path / ("done" if answered else "failed") / name)

    def _waiting(self) -> list[Path]:
        return [path for path in self.path.iterdir() if path.suffix.lower() in IMAGES and path.is_file()]


class Printed(logging.StreamHandler):
    """Lines for whoever reads standard output; the service stops when nobody does any more, as after `| head`."""

    def handleError(self, *_: logging.LogRecord) -> None:  # noqa: N802 -- logging calls it
        if not stopped.is_set():
            stopped.set()
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would fail once more at its end


def serve(model: feed.Model, source: Camera | Folder, log: logging.Logger) -> None:
    """Answers until it is told to stop; an image that cannot be read is written down and passed over."""
    times: deque[float] = deque(maxlen=1000)
    try:
        for name, content in source.images():
            line = {"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), "image": name}
            try:
                answer = model.answer(Image.open(io.BytesIO(content)))
            except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for broken images
                log.warning(json.dumps({**line, "error": str(error)}))
                answer = None
            else:
                times.append(answer.prepare_ms + answer.file_ms)
                figures = {"prepare_ms": round(answer.prepare_ms, 2), "file_ms": round(answer.file_ms, 2)}
                log.info(json.dumps({**line, **answer.said, **figures}))
            if isinstance(source, Folder):
                source.put_away(name, answered=answer is not None)
    finally:
        if times:
            log.info(json.dumps({"last_images": len(times), "p50_ms": round(statistics.median(times), 2)}))


def main(openers: Mapping[str, feed.Opener] = feed.OPENERS) -> int:
    """Runs the service; returns the exit status."""
    given = _arguments()
    log = _log(given.log)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        start = time.perf_counter()
        model = feed.Model(given.model, given.threads, openers)
        opened = {"opened": str(model.path), "load_ms": round((time.perf_counter() - start) * 1000)}
        log.info(json.dumps({**opened, "self_test": "passed" if model.is_tested else "none in the card"}))
        serve(model, Camera(given.camera) if given.camera else Folder(given.folder), log)
    except feed.WrongFileError as error:
        print(error, file=sys.stderr)
        return 2
    except (CameraEndedError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Answer for the images of a camera or a folder, and log each answer.")
    parser.add_argument("model", type=Path, help="folder with the file and its card.json")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--folder", type=Path, help="folder into which images come")
    source.add_argument("--camera", metavar="COMMAND", help="a program that writes JPEG images to its standard output")
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="also write the answers here: 10 MB, and three older ones"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of the runtime (1)")
    return parser.parse_args()


def _log(file: Path | None) -> logging.Logger:
    log = logging.getLogger("answers")
    log.setLevel(logging.INFO)
    log.addHandler(Printed(sys.stdout))
    if file:
        log.addHandler(logging.handlers.RotatingFileHandler(file, maxBytes=10 << 20, backupCount=3))
    return log


if __name__ == "__main__":
    sys.exit(main())
