"""Run a file in a page of headless Chromium: a NumPy batch in, its outputs out, and the page's own clock for the time.

```
predict ─▶ /input ─▶ page: fetch, clock, run, clock ─▶ /output ─▶ outputs
```
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.export.predictor import FilePredictor, layout_of, pixels_or_values
from edgeopt.plugins import BrowserRuntime, TensorInfo
from edgeopt_web.browser import Browser, BrowserError, require_browser
from edgeopt_web.local_server import LocalServer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Outputs, Pixels

_START = "import('/runtime/%s').then(async (runtime) => { window.runtime = runtime; await runtime.start(%d); })"
_OPEN = """(async () => {
  const content = await (await fetch("/file")).arrayBuffer();
  const start = performance.now();
  window.file = await runtime.open(content);
  return [performance.now() - start, file.inputs, file.outputs];
})()"""
_RUN = """(async () => {
  const content = await (await fetch("/input")).arrayBuffer();
  const values = new %s(content);
  const start = performance.now();
  const outputs = await file.run(values, %s);
  const taken = performance.now() - start;
  await fetch("/output", { method: "POST", body: new Blob(outputs) });
  return taken;
})()"""
_ARRAYS = {"float32": "Float32Array", "uint8": "Uint8Array"}


class WebPredictor(FilePredictor):
    """A file opened by a runtime of the browser, in a page that no other page can disturb.

    `load_ms` and `call_ms`, of the last prediction, are by the page's clock: what it takes to bring the batch to the
    page is not in them.
    """

    def __init__(self, path: Path, runtime: BrowserRuntime, *, threads: int = 1) -> None:
        """Open a file.

        Args:
            path: a file that `runtime` opens, of one input.
            runtime: the runtime's code.
            threads: threads within one operator.

        Raises:
            ValueError: the runtime cannot open the file; it has several inputs.
            ExportError: there is no browser.

        """
        self.threads = threads
        self.call_ms = 0.0
        files: dict[str, Path | bytes] = {f"/runtime/{name}": content for name, content in runtime.files.items()}
        with ExitStack() as opened:
            self._server = opened.enter_context(LocalServer({**files, "/file": path}))
            self.browser = opened.enter_context(Browser.start(require_browser()))
            self.browser.go(self._server.address)
            self.browser.evaluate(_START % (runtime.module, threads))
            self._resident = self._memory("VmRSS")
            try:
                self.load_ms, inputs, outputs = self.browser.evaluate(_OPEN)
            except BrowserError as error:
                raise ValueError(f"{runtime.module} cannot open {path}: {error}") from error
            if len(inputs) != 1:
                raise ValueError(f"{path} has {len(inputs)} inputs, not one")
            self.file_input = pixels_or_values(_tensor_info(inputs[0], "NHWC" if _is_last(inputs[0]) else "NCHW"))
            self.output_infos = tuple(_tensor_info(each, layout_of(len(each["shape"]))) for each in outputs)
            self.input_info = _as_fed(self.file_input)
            self._close = opened.pop_all()

    def predict(self, batch: NDArray[np.float32] | Pixels) -> Outputs:
        self.call_ms = 0.0
        return super().predict(batch)

    def run(self, piece: NDArray[np.float32] | Pixels) -> Outputs:
        values = piece.transpose(0, 2, 3, 1) if self.file_input.layout != self.input_info.layout else piece
        self._server.given = np.ascontiguousarray(values).tobytes()
        self.call_ms += self.browser.evaluate(_RUN % (_ARRAYS[values.dtype.name], json.dumps(values.shape)))
        return tuple(self._outputs(len(piece)))

    def _outputs(self, images: int) -> Iterator[NDArray[Any]]:
        """What the page sent, which are the outputs one after the other."""
        start = 0
        for info in self.output_infos:
            dtype = np.dtype(info.dtype)
            shape = (images, *(int(size) for size in info.shape[1:]))
            yield np.frombuffer(self._server.returned, dtype, math.prod(shape), start).reshape(shape)
            start += dtype.itemsize * math.prod(shape)

    def peak_memory_bytes(self) -> int:
        """By how much the page's process has grown, at most, since the runtime was there and the file was not."""
        return max(0, self._memory("VmHWM") - self._resident)

    def _memory(self, name: str) -> int:
        """A figure of /proc, in bytes, of the page's process, which is the largest; 0 where there is no /proc."""
        sizes = [0]
        for process in self.browser.page_processes():
            with suppress(OSError):
                lines = Path(f"/proc/{process}/status").read_text().splitlines()
                sizes += [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")]
        return max(sizes)

    def close(self) -> None:
        """Ends the browser."""
        self._close.close()


def _is_last(details: dict[str, Any]) -> bool:
    """Whether the channels of an input stand last."""
    return bool(details["shape"][-1] in (1, 3))


def _tensor_info(details: dict[str, Any], layout: str) -> TensorInfo:
    return TensorInfo(details["name"], details["dtype"], tuple(details["shape"]), layout)


def _as_fed(info: TensorInfo) -> TensorInfo:
    """The input as `predict` takes it: pixels as they are, values channels first."""
    if info.holds == "pixels" or info.layout == "NCHW":
        return info
    batch, height, width, channels = info.shape
    return TensorInfo(info.name, info.dtype, (batch, channels, height, width), "NCHW")
