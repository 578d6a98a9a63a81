"""Damaged files of models, each read in a process that may crash, hang or run out of memory, and not in this one.

A reader may read a file, or refuse it by one message of edgeopt's. Where its native code crashes, a run tells so, because
it opens files of others in such a process; these files are counted. All else is a failure: another error, a file that
takes too long, and one that takes more memory than the process has without saying so.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeopt.errors import UserError, in_a_line

MEMORY_BYTES = 6 << 30
SECONDS, WALL_SECONDS = 120.0, 1800.0  # of a processor, and of a process that uses none
_CHANNELS = 3
_SIDE = 8


# ---- the process that reads ----------------------------------------------------------------------------------------


def _reader_of(use: str) -> Callable[[Path], object]:
    from edgeopt.plugins import ReaderPlugin
    from edgeopt.plugins.registry import load_registry

    plugin = load_registry().get(ReaderPlugin, use)
    return lambda path: plugin.read(path, plugin.options())


def _opens(module: str, name: str) -> Callable[[Path], object]:
    """Opens a file in its runtime, as what measures it does, and lets it answer once."""
    import importlib

    import numpy as np

    predictor = getattr(importlib.import_module(module), name)

    def read(path: Path) -> object:
        try:
            opened = predictor(path)
        except ValueError as error:  # by which predictors say that they cannot open a file
            raise UserError(str(error)) from error
        images = np.zeros((1, _CHANNELS, _SIDE, _SIDE), np.float32)
        with contextlib.closing(opened):
            try:
                return opened.run(images)
            except (ValueError, RuntimeError) as error:  # what stands in the row of a file
                raise UserError(str(error)) from error

    return read


READERS: dict[str, Callable[[], Callable[[Path], object]]] = {
    "onnx": lambda: _reader_of("onnx"),
    "keras": lambda: _reader_of("keras"),
    "pt2": lambda: _reader_of("pt2"),
    "tflite": lambda: _opens("edgeopt_tflite.predictor", "TflitePredictor"),
}


def _answer(read: Callable[[Path], object], path: Path) -> dict[str, str]:
    from edgeopt.workers.machine_faults import machine_fault

    try:
        read(path)
    except UserError as error:
        return {"refused": in_a_line(error)}
    except Exception as error:
        fault = machine_fault(error)
        return {"raised": traceback.format_exc()} if fault is None else {"refused": in_a_line(fault)}
    return {}


def main() -> None:
    """Reads a whole file, and those that the parent names, one a line; answers in lines of JSON."""
    kind, whole, answers = sys.argv[1], Path(sys.argv[2]), os.fdopen(int(sys.argv[3]), "w")
    read = READERS[kind]()
    first = _answer(read, whole)  # what it imports for that counts for no damaged file
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps(first), file=answers, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends it, also in native code
        print(json.dumps(_answer(read, Path(line.rstrip("\n")))), file=answers, flush=True)
        signal.setitimer(signal.ITIMER_PROF, 0)


# ---- and the one that asks -----------------------------------------------------------------------------------------


@dataclass
class Apart:
    """A process that reads files of one `kind`, written to `file`; begun when it is needed, and anew where it died, with
    a file that is `whole`.
    """

    kind: str
    file: Path
    whole: bytes
    crashes: list[str] = field(default_factory=list)
    _process: subprocess.Popen[str] | None = None
    _answers: int = -1
    _rest: bytes = b""

    def __call__(self, content: bytes) -> None:
        """Raises `UserError` where the file is refused, and `AssertionError` for all that may not be."""
        process = self._process or self._begun()
        assert process.stdin is not None
        self.file.write_bytes(content)
        print(self.file, file=process.stdin, flush=True)
        said = self._said()
        if said is None:
            code = process.wait()
            ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            self.end()
            if ended == "SIGPROF":
                raise AssertionError(f"{self.file} is not read within {SECONDS:g} s of a processor")
            self.crashes.append(ended)
            raise UserError(f"its process ended: {ended}")
        if "raised" in said:
            raise AssertionError(said["raised"])
        if "refused" in said:
            raise UserError(said["refused"])

    def end(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            os.close(self._answers)
            self._process, self._rest = None, b""

    def _begun(self) -> subprocess.Popen[str]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        whole = self.file.with_name(f"whole-{self.file.name}")
        whole.write_bytes(self.whole)
        self._answers, theirs = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), self.kind, str(whole), str(theirs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            pass_fds=(theirs,),
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        )
        os.close(theirs)
        first = self._said()
        assert first == {}, f"the reader of {self.kind} files does not read a whole one: {first}"
        return self._process

    def _said(self) -> dict[str, str] | None:
        """A line of the process; None where it died. One that says nothing for so long is ended."""
        while b"\n" not in self._rest:
            if not select.select([self._answers], [], [], WALL_SECONDS)[0]:
                self.end()
                raise AssertionError(f"{self.file} is not read within {WALL_SECONDS:g} s")
            piece = os.read(self._answers, 1 << 16)
            if not piece:
                return None
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        said: dict[str, str] = json.loads(line)
        return said


# ---- whole files ---------------------------------------------------------------------------------------------------


def onnx_file(**changes: Any) -> bytes:
    """A small classifier: a convolution, the average of its map, a matrix. `changes` are sizes of its input."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    sizes = {"batch": "n", "channels": _CHANNELS, "height": _SIDE, "width": _SIDE, **changes}
    weights = {"kernel": random.normal(size=(4, _CHANNELS, 3, 3)), "matrix": random.normal(size=(4, 5))}
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["map"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["map"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, list(sizes.values()))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [sizes["batch"], 5])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def keras_files(folder: Path) -> Iterator[bytes]:
    """The same as `.keras` and as `.h5`; and the first as a `.tflite` file, the last of three."""
    import tensorflow as tf

    keras = tf.keras
    layers = [
        keras.layers.Input((_SIDE, _SIDE, _CHANNELS)),
        keras.layers.Conv2D(4, 3, padding="same", activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(5),
    ]
    network = keras.Sequential(layers)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("small.keras", "small.h5"):
        network.save(folder / name)
        yield (folder / name).read_bytes()
    converted: bytes = tf.lite.TFLiteConverter.from_keras_model(network).convert()
    yield converted


def pt2_file() -> bytes:
    """The same as a program of PyTorch."""
    import torch
    from torch import nn

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(_CHANNELS, 4, 3, padding=1), nn.Linear(4, 5)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.linear(self.conv(images).relu().mean((2, 3)))
            return logits

    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(Small().eval(), (torch.zeros(2, _CHANNELS, _SIDE, _SIDE),), dynamic_shapes=(batch,))
    held = io.BytesIO()
    torch.export.save(program, held)
    return held.getvalue()


if __name__ == "__main__":
    main()
