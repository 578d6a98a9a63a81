"""`edgeopt convert`: the files that it writes, those beside them, and what is left of a conversion that failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_convert import SIZE, edgeopt, write_pt2
from torch import nn

from edgeopt.conversion.plan import ConversionRequest, convert, make_conversion
from edgeopt.errors import ExportError, RecipeError, StorageError
from edgeopt.plugins.registry import load_registry
from edgeopt.testing.network import TinyNet

pytestmark = pytest.mark.usefixtures("imports_done_once")

OUTSIDE = ("export.external_data=always",)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_pt2(tmp_path_factory.mktemp("source") / "net.pt2")


class Wide(nn.Module):
    """A network whose weights are large enough to stand outside."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 32, 3), nn.Linear(32, 4)

    def forward(self, images):
        return self.head(self.conv(images).relu().mean((2, 3)))


def answers(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: np.ones((1, 3, SIZE, SIZE), np.float32)})[0]


def test_two_files_with_weights_beside_them_stand_in_one_folder(tmp_path):
    (tmp_path / "model.onnx.data").write_text("my own precious file")
    torch.manual_seed(1)
    first = write_pt2(tmp_path / "first.pt2", Wide())
    second = write_pt2(tmp_path / "second.pt2", nn.Sequential(Wide(), nn.Linear(4, 4)))
    for name in (first, second):
        done = edgeopt(name.name, "--to", "onnx", "--set", OUTSIDE[0], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"{name.stem}.onnx.data" in done.stdout
    assert (tmp_path / "model.onnx.data").read_text() == "my own precious file"
    assert answers(tmp_path / "first.onnx").shape == answers(tmp_path / "second.onnx").shape == (1, 4)
    modes = {file.stat().st_mode & 0o777 for file in tmp_path.glob("*.onnx*")}
    assert modes == {(tmp_path / "model.onnx.data").stat().st_mode & 0o777}


def test_a_companion_replaces_nothing_unless_it_was_asked_for(tmp_path):
    source = write_pt2(tmp_path / "net.pt2", Wide())
    request = ConversionRequest(str(source), "onnx", overrides=OUTSIDE)
    (tmp_path / "new.onnx.data").write_text("mine")
    with pytest.raises(StorageError, match=r"new\.onnx\.data is there already"):
        convert(request, tmp_path / "new.onnx")
    assert (tmp_path / "new.onnx.data").read_text() == "mine"
    assert not (tmp_path / "new.onnx").exists()
    result = convert(request, tmp_path / "new.onnx", force=True)
    assert result.companions == (tmp_path / "new.onnx.data",)
    assert result.size_bytes == sum(file.stat().st_size for file in (result.path, *result.companions))


def test_weights_stand_outside_where_all_are_small(tmp_path):
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 4)

        def forward(self, images):
            return self.head(images.mean((2, 3)))

    source = write_pt2(tmp_path / "small.pt2", Small())
    result = convert(ConversionRequest(str(source), "onnx", overrides=OUTSIDE), tmp_path / "small.onnx")
    assert [file.name for file in result.companions] == ["small.onnx.data"]
    assert answers(result.path).shape == (1, 4)
    assert len(onnx.load(result.path, load_external_data=False).graph.initializer)


@pytest.mark.parametrize(
    ("passes", "said"),
    [
        (("ptq", "prune-unstructured"), "pass 'prune-unstructured' needs a trainable module, and 'ptq' before it"),
        (("prune-unstructured", "train"), "pass 'train' does not keep the zeros that 'prune-unstructured'"),
        (("ptq", "qat"), "pass 'qat' needs a trainable module"),
    ],
)
def test_the_order_of_passes_is_that_of_a_recipe(passes, said, source):
    request = ConversionRequest(str(source), "onnx", passes=passes, dataset="digits")
    with pytest.raises(RecipeError) as caught:
        make_conversion(request, load_registry())
    assert said in "\n".join(map(str, caught.value.problems))


PRINTS = """
import os, sys
from edgeopt.plugins import ExportError, ExporterPlugin, Options, hookimpl

def fails(state, options, context):
    print("the library's own words", file=sys.stderr)
    raise ExportError("no such operator", hint="take another")

def dies(state, options, context):
    os.abort()

def waits(state, options, context):
    import pathlib, time
    pathlib.Path(os.environ["MARK"]).write_text(str(os.getpid()))
    time.sleep(300)

@hookimpl
def edgeopt_exporters():
    for name, export in (("fails", fails), ("dies", dies), ("waits", waits)):
        yield ExporterPlugin(name, "Ends.", Options, export=export, open=dies, runtime="mine", suffix=".mine")
"""


def test_a_failed_conversion_keeps_its_own_log_and_names_it(source, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "prints.py").write_text(PRINTS)
    for name, code in (("fails", 2), ("dies", 1)):
        done = edgeopt(str(source), "--to", name, "--plugin", str(tmp_path / "prints.py"), cwd=tmp_path)
        assert done.returncode == code
        log = next(Path(word) for word in done.stderr.split() if word.endswith("log.txt"))
        assert (tmp_path / "temporary") in log.parents
        assert [file.name for file in log.parent.iterdir()] == ["log.txt"]
        assert name != "fails" or "the library's own words" in log.read_text()
        assert not list(tmp_path.glob("*.mine"))
    assert len(list((tmp_path / "temporary").glob("edgeopt-convert-*"))) == 2
    done = edgeopt(str(source), "--to", "onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "temporary").glob("edgeopt-convert-*"))) == 2, "a log of what went well is kept"


def is_alive(process: int) -> bool:
    state = Path(f"/proc/{process}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_a_worker_ends_with_its_parent(ending, source, tmp_path):
    (tmp_path / "prints.py").write_text(PRINTS)
    mark = tmp_path / "mark"
    command = [sys.executable, "-m", "edgeopt", "convert", str(source), "--to", "waits", "--plugin", "prints.py"]
    parent = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "MARK": str(mark)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,  # noqa: PLW1509
    )
    end = time.monotonic() + 120
    while not (mark.exists() and mark.read_text()) and time.monotonic() < end:
        time.sleep(0.1)
    worker = int(mark.read_text())
    parent.send_signal(ending)
    _, said = parent.communicate(timeout=30)
    if ending == signal.SIGINT:
        assert parent.returncode == 130
        assert said.strip() == "interrupted; nothing was written, and nothing is kept"
    while is_alive(worker) and time.monotonic() < end:
        time.sleep(0.1)
    assert not is_alive(worker)


def test_no_pass_changes_a_quantized_source(tmp_path):
    quantized = tmp_path / "quantized.pt2"
    write_quantized(quantized)
    with pytest.raises(ExportError, match=r"quantized\.pt2 is quantized \(int8\), and pass 'ptq' takes a float model"):
        convert(
            ConversionRequest(
                str(quantized), "onnx", passes=("ptq",), dataset="digits", overrides=("dataset.limit=40",)
            ),
            tmp_path / "no.onnx",
        )


def write_quantized(path: Path) -> None:
    """A program with a layer whose input is rounded to int8, as `torch.export.save` writes it."""
    import torch.ao.quantization.fx._decomposed

    class Rounds(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = TinyNet(4)

        def forward(self, images):
            operators = torch.ops.quantized_decomposed
            rounded = operators.quantize_per_tensor.default(images, 0.05, 0, -128, 127, torch.int8)
            return self.net(operators.dequantize_per_tensor.default(rounded, 0.05, 0, -128, 127, torch.int8))

    write_pt2(path, Rounds())
