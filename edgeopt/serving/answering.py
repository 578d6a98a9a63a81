"""A process that answers for one file: `python -m edgeopt.serving.answering JOB.pickle`.

It reads images on its standard input and writes an event for each on its standard output. The next image is decoded
while the file works on the one before. The process ends when its standard input does.
"""

from __future__ import annotations

import io
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from edgeopt.arrays import Json, as_outputs, load_outputs, of_images, save_outputs
from edgeopt.errors import DataError, first_line
from edgeopt.plugins.handed import handed
from edgeopt.plugins.predictor import timed_call
from edgeopt.preprocessing import Geometry, Preprocessing
from edgeopt.serving.job import HEADER, AnswerJob, Wanted, kept_outputs
from edgeopt.tasks.classification import Classification
from edgeopt.workers.process import Events, leave, work

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from edgeopt.arrays import Outputs, Pixels
    from edgeopt.data.images import ImageBounds
    from edgeopt.plugins.predictor import Predictor

    Batch: TypeAlias = NDArray[np.float32] | Pixels
    Feed: TypeAlias = Callable[[Pixels], Batch]
    Call: TypeAlias = Callable[[Batch], tuple[Outputs, float]]

_MOST_GUESSES = 5
_PIECE_BYTES = 1 << 20
_SWITCH_S = 0.0005  # Python's own 5 ms are longer than most files need, and would be added to them
_USUAL = {"JPEG", "PNG"}


@dataclass(frozen=True, eq=False)
class _Ready:
    """An image as the file takes it, with a batch of one, how it came into the file's frame, and how many milliseconds
    that took.
    """

    number: int
    batch: Batch
    geometry: Geometry
    wanted: Wanted
    decode_ms: float
    preprocessing_ms: float


@dataclass(frozen=True, eq=False)
class _Done:
    """What a file answered for the one image, or why it did not; and how many milliseconds it took."""

    ready: _Ready
    outputs: Outputs | str
    file_ms: float


def main(events: Events) -> None:
    """Opens the file and answers until nothing is asked any more."""
    sys.setswitchinterval(_SWITCH_S)
    job = handed(AnswerJob, Path(sys.argv[1]))
    from edgeopt.data.images import ImageBounds  # numpy and Pillow
    from edgeopt.measure.answers import feeder

    preprocessing = job.preprocessing
    feed = feeder(job.card.input.holds if job.card.input else "values", preprocessing)
    reader = _Reader(ImageBounds(job.formats, job.pixels), preprocessing, feed)
    prepared: queue.Queue[_Ready] = queue.Queue(maxsize=1)
    done: queue.SimpleQueue[_Done] = queue.SimpleQueue()
    # from the start, because this thread is also who sees that the parent is gone
    threading.Thread(target=reader.read, args=(prepared.put, events), daemon=True).start()
    reader.warm()
    start = time.perf_counter()
    with job.exporter.opened(job.path, job.threads) as predictor:
        call, teller = _call(predictor, job, feed), _Teller(job)
        teller.warm(call, feed)
        events.send({"event": "ready", "open_ms": _ms_since(start)})
        # the server is told by a thread of its own: whoever writes into a pipe shares its processor with the reader
        threading.Thread(target=_tell, args=(done.get, teller, events), daemon=True).start()
        while True:
            done.put(_answered(prepared.get(), call))


def _call(predictor: Predictor, job: AnswerJob, feed: Feed) -> Call:
    """The outputs for one image, and the file's milliseconds; warm. An image whose file takes no call of one is
    repeated.
    """
    import numpy as np  # heavy; this process answers

    blank = feed(np.zeros((1, *job.preprocessing.shape), np.uint8))
    taken = job.card.input.shape[0] if job.card.input else 1
    images = 1
    try:
        predictor.predict(blank)
    except Exception:
        if not isinstance(taken, int) or taken == 1:
            raise
        images = taken
        predictor.predict(_repeated(blank, images))

    def first(batch: Batch) -> Outputs:
        return of_images(as_outputs(predictor.predict(_repeated(batch, images))), slice(1))

    return lambda batch: timed_call(predictor, lambda: first(batch))


def _repeated(batch: Batch, images: int) -> Batch:
    import numpy as np  # heavy, see above

    if images == 1:
        return batch
    repeated: Any = np.repeat(batch, images, axis=0)
    return cast("Batch", repeated)


@dataclass(frozen=True)
class _Reader:
    """Decodes and preprocesses what is asked, one image ahead of the file, in a thread of its own."""

    bounds: ImageBounds
    preprocessing: Preprocessing
    feed: Feed

    def read(self, give: Callable[[_Ready], None], events: Events) -> None:
        """Hands on every image that can be read; the others are refused. Ends the process when nobody asks any more."""
        try:
            for number, image, wanted in _requests():
                if ready := self._ready_or_refused(number, image, events, wanted):
                    give(ready)
                del ready, image  # the next one may be long in coming
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _ready_or_refused(self, number: int, image: bytes, events: Events, wanted: Wanted) -> _Ready | None:
        from edgeopt.data.images import LargeImageError  # numpy and Pillow

        hint = f"send a whole image file: {', '.join(self.bounds.formats)}"
        try:
            return self._ready(number, image, wanted)
        except LargeImageError as error:
            events.send(_refusal(number, 413, error.problems[0].message, error.problems[0].hint))
        except DataError as error:
            events.send(_refusal(number, 415, error.problems[0].message, hint))
        except Exception as error:
            events.send(_refusal(number, 415, f"the image cannot be read: {first_line(error)}", hint))
        return None

    def warm(self) -> None:
        """Decodes an image of each usual format, so that the first one asked about does not wait for decoders."""
        from PIL import Image  # heavy, see above

        for image_format in set(self.bounds.formats) & _USUAL:
            blank = io.BytesIO()
            Image.new("RGB", (8, 8)).save(blank, image_format)
            self._ready(0, blank.getvalue(), Wanted())

    def _ready(self, number: int, image: bytes, wanted: Wanted) -> _Ready:
        import numpy as np  # heavy, see above

        from edgeopt.data.images import open_image, unreadable

        start = time.perf_counter()
        decoded = open_image(image, "the image", self.bounds)
        decode_ms = _ms_since(start)
        start = time.perf_counter()
        if wanted.is_prepared:
            pixels = np.asarray(self._as_cut(decoded)).reshape(self.preprocessing.shape)
            sides = self.preprocessing.size
            geometry = Geometry(sides, sides, sides, (0, 0))
        else:
            try:
                pixels, geometry = self.preprocessing.pixels_and_geometry(decoded)
            except Exception as error:  # an image that Pillow cannot convert
                raise unreadable("the image", error) from error
        return _Ready(number, self.feed(pixels[np.newaxis]), geometry, wanted, decode_ms, _ms_since(start))

    def _as_cut(self, image: Image.Image) -> Image.Image:
        """An image that is resized and cut already."""
        tall, wide = self.preprocessing.size
        if image.size != (wide, tall):
            width, height = image.size
            raise DataError(f"a prepared image for this file has {wide} × {tall} pixels, not {width} × {height}")
        return image.convert("L" if self.preprocessing.channels == 1 else "RGB")


def _answered(ready: _Ready, call: Call) -> _Done:
    try:
        outputs, file_ms = call(ready.batch)
    except Exception as error:
        return _Done(ready, first_line(error), 0.0)
    return _Done(ready, outputs, file_ms)


class _Teller:
    """Says as JSON what the file's outputs mean, by its task."""

    def __init__(self, job: AnswerJob) -> None:
        self._classes, self._folder, self._task = job.card.classes, job.folder, job.task
        self._preprocessing = job.preprocessing

    def warm(self, call: Call, feed: Feed) -> None:
        """Tells of an empty image, so that the first one asked about does not wait for what a task imports."""
        import numpy as np  # heavy, see above

        if not isinstance(self._task, Classification):
            sides = self._preprocessing.size
            blank = feed(np.zeros((1, *self._preprocessing.shape), np.uint8))
            geometry = Geometry(sides, sides, sides, (0, 0))
            self.event(_answered(_Ready(0, blank, geometry, Wanted(), 0.0, 0.0), call))

    def event(self, done: _Done) -> dict[str, Json]:
        """What the server is told of an answer."""
        import numpy as np  # heavy, see above

        number, outputs = done.ready.number, done.outputs
        if isinstance(outputs, str):
            return _refusal(number, 502, f"the file failed: {outputs}")
        if not all(np.isfinite(each).all() for each in outputs if each.dtype.kind == "f"):
            return _refusal(number, 502, "the file failed: it answers with numbers that are not finite")
        try:
            answer = {"top": self._top(outputs), "found": self._found(outputs, done.ready.geometry)}
            alike = self._compared(outputs, done.ready.wanted)
        except Exception as error:
            return _refusal(number, 502, f"its outputs are none of the task {self._task.name}: {first_line(error)}")
        return {
            "event": "answer",
            "number": number,
            "decode_ms": done.ready.decode_ms,
            "preprocessing_ms": done.ready.preprocessing_ms,
            "file_ms": done.file_ms,
            **answer,
            "alike": alike,
        }

    def _top(self, outputs: Outputs) -> list[tuple[str, float]]:
        """The likeliest classes of a classifier; of other tasks none."""
        import numpy as np  # as above

        if not isinstance(self._task, Classification):
            return []
        shares = self._task.confidences(outputs[0])[0]
        likeliest = np.argsort(-shares, kind="stable")[:_MOST_GUESSES]
        return [(self._classes[index], float(shares[index])) for index in likeliest]

    def _found(self, outputs: Outputs, geometry: Geometry) -> dict[str, Json] | None:
        if isinstance(self._task, Classification):
            return None
        from edgeopt.serving.findings import found_of  # NumPy

        (drawing,) = self._task.drawings(outputs, self._classes)
        return found_of(drawing, self._classes, geometry)

    @staticmethod
    def _keep(outputs: Outputs, file: Path) -> None:
        """Keeps outputs; where the disk takes them not, the answer is as good, and nothing is compared with it."""
        try:
            save_outputs(file, outputs)
        except OSError:
            file.unlink(missing_ok=True)

    def _compared(self, outputs: Outputs, wanted: Wanted) -> bool | None:
        """Whether this answer and the kept one are alike to whoever uses them; None where that cannot be said."""
        if wanted.keep:
            self._keep(outputs, kept_outputs(self._folder, wanted.keep))
        if not wanted.reference:
            return None
        try:
            reference = load_outputs(kept_outputs(self._folder, wanted.reference))
        except OSError:  # it went meanwhile, because others were kept
            return None
        if [each.shape for each in reference] != [each.shape for each in outputs]:
            return None
        return bool(self._task.alike(outputs, reference)[0])


def _tell(get: Callable[[], _Done], teller: _Teller, events: Events) -> None:
    """Says what the file answered, in a thread of its own. Ends the process when nobody listens any more."""
    try:
        while True:
            events.send(teller.event(get()))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _refusal(number: int, status: int, error: str, hint: str | None = None) -> dict[str, Json]:
    return {"event": "refusal", "number": number, "status": status, "error": error, "hint": hint}


def _requests() -> Iterator[tuple[int, bytes, Wanted]]:
    """What the parent asks; ends this process when standard input ends, which it does when the parent dies."""
    while True:
        number, length, *wanted = HEADER.unpack(_exactly(HEADER.size))
        yield number, _exactly(length), Wanted(*wanted)


def _exactly(length: int) -> bytes:
    """So many bytes of standard input: read as in `workers.process`, for the same reason."""
    pieces = bytearray()
    while len(pieces) < length:
        piece = os.read(0, min(length - len(pieces), _PIECE_BYTES))
        if not piece:
            os._exit(0)
        pieces += piece
    return bytes(pieces)


def _ms_since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    leave(work(main))
