"""Opens an `.xml` file with its `.bin` where edgeopt is not. This module goes to devices as it is, with
`edgeopt.export.companions`.

The `.bin` says nothing of itself, and OpenVINO takes any that is long enough. So the `.xml` keeps its SHA-256.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from edgeopt.export.companions import require_weights

_DIGEST = re.compile(rb"<edgeopt_weights_sha256 value='([0-9a-f]{64})'")  # other tools keep it, in double quotes


def open_model(path: Path, threads: int, **settings: object) -> tuple[openvino.Model, openvino.CompiledModel]:
    """The graph of an `.xml` file with the weights beside it, and what OpenVINO makes of it, see `compiled`.

    Raises `ValueError` where the weights are not there or are those of another file, and for what OpenVINO cannot read
    or run.
    """
    model = read_model(path)
    return model, compiled(path, model, threads, **settings)


def read_model(path: Path) -> openvino.Model:
    """The graph of an `.xml` file with the weights beside it; raises as `open_model` does."""
    content = path.read_bytes()
    if not content.startswith(b"<?xml"):  # OpenVINO would try the readers of all other formats
        raise ValueError(f"{path} is no file of OpenVINO: it does not begin as XML does")
    digest = _DIGEST.search(content)
    require_weights(path, digest[1].decode() if digest else None)
    with _refusals_of(path):
        return openvino.Core().read_model(path)


def compiled(path: Path, model: openvino.Model, threads: int, **settings: object) -> openvino.CompiledModel:
    """What OpenVINO makes on the processor of the graph of a file; `settings` are further properties of OpenVINO by
    their names.

    What is float is computed in float32, also where the processor has bfloat16 or float16, which OpenVINO would take by
    itself: a file answers alike on every processor, and is held against a float32 program. Threads are not tied to
    cores, because a thread that is waits for whoever else works on its own.

    Raises `ValueError` for what OpenVINO cannot run.
    """
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    with _refusals_of(path):
        return openvino.Core().compile_model(model, "CPU", {**properties, **settings})


@contextmanager
def _refusals_of(path: Path) -> Iterator[None]:
    """Within, what OpenVINO refuses becomes a `ValueError` that names the file."""
    try:
        yield
    except RuntimeError as error:
        raise ValueError(f"OpenVINO cannot open {path}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """What OpenVINO says, without the places in its own source that it begins with."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith(("Exception from", "Check '"))]
    return " ".join(lines) or str(error)


class OpenFile:
    """A file that answers in calls as large as it takes."""

    def __init__(self, model: openvino.CompiledModel) -> None:
        self.model = model
        self._request = model.create_infer_request()

    def predict(self, batch: Any) -> Any:
        """An array for each output, for what the file takes, as it is."""
        answer = self._request.infer([np.ascontiguousarray(batch)], share_inputs=True)
        return tuple(answer[place] for place in range(len(self.model.outputs)))

    def close(self) -> None:
        """Free the file's memory."""
        del self._request, self.model


def open_file(path: Path, threads: int) -> OpenFile:
    """The file, opened in OpenVINO on the processor; raises as `open_model` does."""
    return OpenFile(open_model(path, threads)[1])
