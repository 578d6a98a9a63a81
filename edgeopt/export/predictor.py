"""A file opened in its runtime: what predictors of all runtimes share. Light: NumPy appears in annotations only."""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from edgeopt.arrays import InputKind
from edgeopt.errors import ExportError
from edgeopt.types import TensorInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Logits, Pixels
    from edgeopt.types import ModelState


LIBRARIES = "edgeopt.libraries"
"""The logger that takes what libraries say while an exporter keeps them quiet."""


def input_of(state: ModelState, batch: int | str, name: str = "input") -> TensorInfo:
    """What a file of a state's program takes: float32 NCHW, or the pixels that the program normalizes itself."""
    channels, height, width = state.input_shape
    if state.input_kind is InputKind.UINT8_NHWC:
        return TensorInfo(name, "uint8", (batch, height, width, channels), "NHWC", holds="pixels")
    return TensorInfo(name, "float32", (batch, channels, height, width), "NCHW")


def pixels_or_values(info: TensorInfo) -> TensorInfo:
    """The input of a file as its runtime describes it, completed: unscaled bytes are pixels, channels last."""
    if info.dtype == "uint8" and info.scale is None:
        return replace(info, layout="NHWC", holds="pixels")
    return info


@contextmanager
def damaged_explained() -> Iterator[None]:
    """Within, a `ValueError` of a predictor, whose file its runtime does not open, becomes an `ExportError` with a
    hint.
    """
    try:
        yield
    except ValueError as error:
        hint = (
            "a file that was just made has an operator that its runtime does not take: replace it in the model; "
            "else export it again"
        )
        raise ExportError(str(error), hint=hint) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Within, Python warnings and log records up to WARNING go to the logger `LIBRARIES` as information.

    Nobody sees those but a worker, which writes them to the run's log. Errors still show.
    """
    quieted = logging.getLogger(LIBRARIES)
    handle = logging.Logger.handle

    def tell(text: str) -> None:
        if quieted.isEnabledFor(logging.INFO):
            handle(quieted, quieted.makeRecord(LIBRARIES, logging.INFO, "", 0, text, (), None))

    def handle_quietly(self: logging.Logger, record: logging.LogRecord) -> None:
        if record.levelno > logging.WARNING or self is quieted:
            handle(self, record)
        else:
            tell(f"{record.name}: {record.getMessage()}")

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,  # noqa: ARG001 - `warnings` calls it so
        line: str | None = None,  # noqa: ARG001
    ) -> None:
        tell(f"{filename}:{lineno}: {category.__name__}: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        logging.Logger.handle = handle_quietly  # type: ignore[method-assign]  # loggers with handlers of their own too
        try:
            yield
        finally:
            logging.Logger.handle = handle  # type: ignore[method-assign]


class FilePredictor(ABC):
    """A file with one input of images, float32 or pixels, and one float32 output of logits, opened in its runtime.

    A runtime sets `input_info` and `output_info` and runs one piece; a batch of any size is cut into pieces that the
    file takes. The first size of a shape is the largest batch of one call, or "batch" where any is taken.
    """

    input_info: TensorInfo
    output_info: TensorInfo

    @abstractmethod
    def run(self, piece: NDArray[np.float32] | Pixels) -> Logits:
        """Logits of one call."""

    @abstractmethod
    def close(self) -> None:
        """Frees the file's memory."""

    def predict(self, batch: NDArray[np.float32] | Pixels) -> Logits:
        """Logits, float32 (n, classes), of float32 images (n, 3, height, width), or of pixels where the file takes
        them.

        Raises `ValueError` when the images have another type or shape than the file's input.
        """
        import numpy as np  # heavy; whoever has a batch has imported it

        expected, given = (self.input_info.dtype, self.input_info.shape[1:]), (batch.dtype.name, batch.shape[1:])
        if expected != given:
            raise ValueError(f"the file takes {expected[0]} {expected[1]} for each image, not {given[0]} {given[1]}")
        if not len(batch):
            classes = [size for size in self.output_info.shape[1:] if isinstance(size, int)]
            return np.empty((0, *classes), np.float32)
        largest = self.input_info.shape[0]
        size = largest if isinstance(largest, int) else len(batch)
        return np.concatenate([self.run(batch[start : start + size]) for start in range(0, len(batch), size)])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
