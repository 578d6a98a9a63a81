"""A file opened in its runtime: what predictors of all runtimes share. Light: NumPy appears in annotations only."""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

from edgeopt.arrays import InputKind, joined
from edgeopt.errors import ExportError
from edgeopt.export.refusals import require_named_outputs
from edgeopt.types import TensorInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Outputs, Pixels
    from edgeopt.types import ModelState


LIBRARIES = "edgeopt.libraries"
"""The logger that takes what libraries say while an exporter keeps them quiet."""


def input_of(state: ModelState, batch: int | str, name: str = "input") -> TensorInfo:
    """What a file of a state's program takes: float32 NCHW, or the pixels that the program normalizes itself."""
    channels, height, width = state.input_shape
    if state.input_kind is InputKind.UINT8_NHWC:
        return TensorInfo(name, "uint8", (batch, height, width, channels), "NHWC", holds="pixels")
    return TensorInfo(name, "float32", (batch, channels, height, width), "NCHW")


def outputs_of(state: ModelState, batch: int | str) -> tuple[TensorInfo, ...]:
    """What a file of a state's program gives: an output for each of the state's names, of the program's own type.

    Raises `ExportError` where the program returns another number of them.
    """
    from edgeopt.networks.outputs import returned_nodes  # whoever has a program has imported torch

    require_named_outputs(state.program, state.output_names)
    values = [node.meta["val"] for node in returned_nodes(state.program)]
    return tuple(
        TensorInfo(
            name, str(value.dtype).removeprefix("torch."), (batch, *map(int, value.shape[1:])), layout_of(value.dim())
        )
        for name, value in zip(state.output_names, values, strict=True)
    )


def layout_of(axes: int) -> str:
    """What so many axes of an output are: "NC" for values of an image, "NCHW" for values of its places, channels first;
    "N" and a "D" for each further axis where nobody knows.
    """
    return {2: "NC", 4: "NCHW"}.get(axes, "N" + "D" * (axes - 1))


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
    """A file with one input of images, float32 or pixels, and one or several outputs, opened in its runtime.

    A runtime sets `input_info` and `output_infos` and runs one piece; a batch of any size is cut into pieces that the
    file takes. The first size of a shape is the largest batch of one call, or "batch" where any is taken.
    """

    input_info: TensorInfo
    output_infos: tuple[TensorInfo, ...]

    @abstractmethod
    def run(self, piece: NDArray[np.float32] | Pixels) -> Outputs:
        """The outputs of one call."""

    @abstractmethod
    def close(self) -> None:
        """Frees the file's memory."""

    def predict(self, batch: NDArray[np.float32] | Pixels) -> Outputs:
        """An array for each output, for float32 images (n, channels, height, width), or for pixels where the file takes
        them.

        Raises `ValueError` when the images have another type or shape than the file's input.
        """
        expected, given = (self.input_info.dtype, self.input_info.shape[1:]), (batch.dtype.name, batch.shape[1:])
        if expected != given:
            raise ValueError(f"the file takes {expected[0]} {expected[1]} for each image, not {given[0]} {given[1]}")
        if not len(batch):
            return tuple(_nothing(info) for info in self.output_infos)
        largest = self.input_info.shape[0]
        size = largest if isinstance(largest, int) else len(batch)
        return joined([self.run(batch[start : start + size]) for start in range(0, len(batch), size)])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class OpenFile(Protocol):
    """A file as `ExporterPlugin.on_device` opens it, which answers in calls as large as it takes."""

    def predict(self, batch: Any) -> Any: ...

    def close(self) -> None: ...


class OpenFilePredictor(FilePredictor):
    """A file that is opened here as it is on a device: a runtime sets `_file` besides."""

    _file: OpenFile

    def run(self, piece: NDArray[np.float32] | Pixels) -> Outputs:
        outputs: Outputs = self._file.predict(piece)
        return outputs

    def close(self) -> None:
        """Frees the file's memory."""
        self._file.close()


def _nothing(info: TensorInfo) -> NDArray[Any]:
    """What a file gives for no image."""
    import numpy as np  # heavy; whoever has a batch has imported it

    is_real = info.scale is not None or np.issubdtype(np.dtype(info.dtype), np.floating)
    sizes = [size for size in info.shape[1:] if isinstance(size, int)]
    return np.empty((0, *sizes), np.float32 if is_real else np.dtype(info.dtype))
