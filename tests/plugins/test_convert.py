"""`edgeopt convert`, from PyTorch's program files."""

from __future__ import annotations

import contextlib
import json
import pickle
import subprocess
import zipfile

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from edgeopt.cli import app
from edgeopt.conversion.plan import ConversionRequest, convert, make_conversion
from edgeopt.errors import CheckpointError, ExportError, RecipeError, StorageError
from edgeopt.plugins.registry import load_registry
from edgeopt.report.finished_files import find_files
from edgeopt.testing import ReaderContract
from edgeopt.testing.network import TinyNet
from edgeopt_onnx.predictor import OnnxPredictor
from edgeopt_pt2 import outputs
from edgeopt_pt2.options import Pt2Options
from edgeopt_pt2.plugin import read

pytestmark = pytest.mark.usefixtures("imports_done_once")

SIZE = 16


def write_pt2(path, module=None, *, batch=True):
    torch.manual_seed(0)
    module = (module or TinyNet(4)).eval()
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},) if batch else None
    program = torch.export.export(module, (torch.randn(2 if batch else 1, 3, SIZE, SIZE),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_pt2(tmp_path_factory.mktemp("source") / "net.pt2")


class TestPt2(ReaderContract):
    name = "pt2"

    @classmethod
    def write(cls, folder):
        return write_pt2(folder / "net.pt2")


def edgeopt(*arguments, cwd):
    """`edgeopt convert ARGUMENTS`, whose workers are those of `imports_done_once`."""
    with contextlib.chdir(cwd):
        done = CliRunner().invoke(app, ["convert", *arguments], prog_name="edgeopt")
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def test_both_sides_are_run_and_the_difference_is_printed(source, tmp_path):
    done = edgeopt(str(source), "--to", "onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "largest difference" in done.stdout
    assert "opened in           onnxruntime" in done.stdout
    assert (tmp_path / "net.onnx").stat().st_size > 0
    again = edgeopt(str(source), "--to", "onnx", cwd=tmp_path)
    assert again.returncode == 2
    assert "--force" in again.stderr


@pytest.fixture(scope="module")
def int8(source, tmp_path_factory):
    """A file that was calibrated with digits, as `edgeopt convert` made it."""
    request = ConversionRequest(
        str(source),
        "onnx",
        passes=("ptq",),
        dataset="digits",
        overrides=("dataset.limit=40", "source.mean=[0.5, 0.5, 0.5]"),
    )
    return convert(request, tmp_path_factory.mktemp("int8") / "net.onnx")


def test_int8_is_calibrated_with_a_data_set(int8):
    assert (int8.precision, int8.images_from) == ("int8", "digits")
    assert int8.images > 10
    assert 0 < int8.relative_difference < 0.2
    assert int8.path.stat().st_size == int8.size_bytes


def test_a_converted_file_is_timed_and_judged_by_its_card(int8, tmp_path):
    """Of no run: what it takes stands in its card, and how often it is right is asked of labelled images."""
    classes = "dataset.classes=['0', '1', '2', '3']"  # of a network with four outputs
    arguments = ["--dataset", "digits", "--set", classes, "--set", "dataset.limit=9", "--images", "20", "--runs", "5"]
    done = CliRunner().invoke(app, ["bench", str(int8.path), *arguments, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.stderr
    bench = json.loads((tmp_path / "bench.json").read_text())
    (row,), (whole,) = bench["rows"], bench["whole"]
    assert (row["file"], row["precision"], row["image_size"]) == ("net.onnx", "int8", SIZE)
    assert row["latency_ms"]["p50"] > 0
    assert whole["pipeline_ms"]["total"] > 0
    assert bench["labelled"] == "9 test images of digits"
    assert 9 * row["test_accuracy"] == pytest.approx(round(9 * row["test_accuracy"]))
    assert "right for 9 test images of digits" in done.stdout


def test_what_a_converted_file_cannot_be_asked_is_said(int8, tmp_path):
    path = str(int8.path)
    for arguments, message in (
        (["bench", path, "--device", "local"], "has no run, whose test images a device would be given"),
        (["bench", path, "--set", "dataset.limit=9"], "no data set is named"),
        (["bench", str(tmp_path), "--dataset", "digits"], "there is no report.json"),
        (["bench", __file__], "has no card, neither within nor beside it"),
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 2
        assert message in " ".join(done.stderr.split())


def test_a_converted_file_can_be_served(int8):
    catalogue = find_files([int8.path, int8.path], load_registry())
    (file,) = catalogue.files
    assert (file.name, file.exporter.name, file.row.precision, file.is_converted) == ("net.onnx", "onnx", "int8", True)
    assert catalogue.samples == ()
    assert file.size_bytes == int8.size_bytes


def test_a_program_of_one_image_at_a_time(tmp_path):
    result = convert(
        ConversionRequest(str(write_pt2(tmp_path / "one.pt2", batch=False)), "onnx"), tmp_path / "one.onnx"
    )
    assert result.relative_difference < 1e-5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "onxx"}, "did you mean 'onnx'"),
        ({"format": "npu"}, "known: coreml, executorch, litert-web, ncnn, onnx"),
        ({"overrides": ("export.opset=99",)}, "export.opset"),
        ({"overrides": ("epxort.opset=18",)}, "the tables are source, export, dataset"),
        ({"overrides": ("dataset.limit=9",)}, "--dataset"),
        ({"passes": ("ptq",)}, "name a data set"),
        ({"passes": ("ptq",), "dataset": "digits", "overrides": ("export.precision=float16",)}, "float"),
        ({"source": "missing.pt2"}, "no such file"),
        ({"overrides": ("source.mean=[123.675, 116.28, 103.53]",)}, "divide by 255 and write [0.485, 0.456, 0.406]"),
        ({"overrides": ("source.std=[58.395, 57.12, 57.375]",)}, "divide by 255 and write [0.229, 0.224, 0.225]"),
    ],
)
def test_mistakes_are_found_before_anything_is_opened(source, changes, said):
    with pytest.raises(RecipeError) as caught:
        make_conversion(ConversionRequest(**{"source": str(source), "format": "onnx", **changes}), load_registry())
    assert said in "\n".join(map(str, caught.value.problems))


def test_an_ending_that_nobody_reads(tmp_path):
    (tmp_path / "net.xyz").write_bytes(b"1")
    with pytest.raises(RecipeError, match=r"'\.xyz'"):
        make_conversion(ConversionRequest(str(tmp_path / "net.xyz"), "onnx"), load_registry())


def test_a_file_with_code_in_it_is_refused(source, tmp_path):
    """`torch.export.load` would unpickle it."""
    marker = tmp_path / "executed"

    class Code:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    bad = tmp_path / "bad.pt2"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(bad, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) if "sample_inputs" not in name else pickle.dumps(Code()))
    with pytest.raises(CheckpointError, match="pickled objects"):
        read(bad, Pt2Options())
    assert not marker.exists()


class One(nn.Module):
    """One value an image, as a classifier of two classes gives it."""

    def __init__(self, end):
        super().__init__()
        self.net, self.end = TinyNet(1), end

    def forward(self, images):
        return self.end(self.net(images))


ENDS = {
    "sigmoid": torch.sigmoid,
    "logit": lambda value: value,
    "flat": lambda value: value.sigmoid().squeeze(1),
    "by-value": lambda value: torch.nn.functional.hardsigmoid(-value),
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("batch", [True, False])
def test_one_output_for_two_classes_becomes_their_logits(name, batch, tmp_path):
    path = write_pt2(tmp_path / "one.pt2", One(ENDS[name]), batch=batch)
    images = torch.randn(3 if batch else 1, 3, SIZE, SIZE)
    given = torch.export.load(path).module()(images).detach().reshape(-1)
    state = read(path, Pt2Options())
    assert state.classes == ("0", "1")
    expected = given if name == "logit" else torch.log(given / (1 - given))
    logits = state.program.module()(images)
    assert torch.allclose(logits, torch.stack([torch.zeros(len(images)), expected], dim=1), atol=1e-4)


@pytest.mark.parametrize("format", ["onnx", "tflite", "executorch"])
def test_two_logits_of_one_output_are_quantized_like_others(format, tmp_path):
    torch.manual_seed(5)  # weights whose answers lie far enough apart for 256 steps
    source = write_pt2(tmp_path / "one.pt2", One(torch.sigmoid))
    request = ConversionRequest(
        str(source),
        format,
        passes=("ptq",),
        dataset="digits",
        overrides=("dataset.limit=40", 'dataset.classes=["0", "1"]'),
    )
    result = convert(request, tmp_path / f"one.{format}")
    assert result.precision == "int8"
    assert result.relative_difference < 0.1


class Heads(nn.Module):
    """What a segmenter returns beside what helps its training, and what a classifier would."""

    def __init__(self):
        super().__init__()
        self.first, self.masks = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 5, 1)

    def forward(self, images):
        maps = torch.relu(self.first(images))
        found = self.masks(maps)
        return {"out": found, "aux": [found.argmax(1), maps.mean((2, 3))]}


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    return write_pt2(tmp_path_factory.mktemp("heads") / "heads.pt2", Heads())


def test_outputs_of_any_shapes_keep_their_names(heads, tmp_path):
    state = read(heads, Pt2Options())
    assert state.output_names == ("out", "aux.0", "aux.1")
    assert (state.task.name, state.classes) == ("numbers", ())
    result = convert(ConversionRequest(str(heads), "onnx"), tmp_path / "all.onnx")
    assert [each.name for each in result.outputs] == ["out", "aux.0", "aux.1"]
    assert all(each.share < 1e-3 for each in result.outputs)
    assert (result.task, result.agreement) == ("numbers", 1.0)


def test_one_output_is_kept_by_its_name(heads, tmp_path):
    done = edgeopt(str(heads), "--to", "onnx", "--set", "source.output=out", "--out", "out.onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "same answer" in done.stdout and "top-1" not in done.stdout
    with OnnxPredictor(tmp_path / "out.onnx", threads=1) as predictor:
        (masks,) = predictor.predict(np.zeros((1, 3, SIZE, SIZE), np.float32))
    assert masks.shape == (1, 5, SIZE // 2, SIZE // 2)


def test_one_output_of_logits_is_that_of_a_classifier(heads):
    state = read(heads, Pt2Options(output="aux.1", classes=tuple("abcdef")))
    assert (state.task.name, state.output_names, state.classes) == ("classification", ("logits",), tuple("abcdef"))
    for options, said in (
        ({"output": "aux.2"}, r"has no output 'aux.2'[\s\S]*aux.1"),
        ({"classes": ("a",)}, r"source.classes are of logits"),
    ):
        with pytest.raises(CheckpointError, match=said):
            read(heads, Pt2Options(**options))


class Shrinks(nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :3].mean(0, keepdim=True), images.mean((2, 3))


def test_outputs_that_no_file_holds_are_refused_with_what_to_export(tmp_path, monkeypatch):
    path = write_pt2(tmp_path / "odd.pt2", Shrinks())
    with pytest.raises(CheckpointError, match=r"'output_0' is float32 1 x 3, not[\s\S]*source.output: output_1"):
        read(path, Pt2Options())
    monkeypatch.setattr(outputs, "SUPPRESSION", "mean")  # torchvision's compiled operator is not everywhere
    with pytest.raises(CheckpointError, match=r"removes overlapping boxes itself[\s\S]*raw heads"):
        read(path, Pt2Options())


class Alike(nn.Module):
    """Answers nearly the same whatever it sees, as an untrained model does."""

    def __init__(self):
        super().__init__()
        self.net = TinyNet(4)

    def forward(self, images):
        return (self.net(images) * 1e-7).softmax(1)


def test_rounding_is_no_difference_where_answers_are_alike(tmp_path):
    result = convert(
        ConversionRequest(str(write_pt2(tmp_path / "alike.pt2", Alike())), "tflite"), tmp_path / "alike.tflite"
    )
    assert result.max_difference < 1e-6
    assert result.relative_difference < 1e-4


def test_nothing_is_written_when_the_file_would_compute_something_else(source, tmp_path, monkeypatch):
    from edgeopt.conversion import plan as conversion

    monkeypatch.setattr(conversion, "FLOAT_TOLERANCE", -1.0)
    with pytest.raises(ExportError, match="nothing was written"):
        convert(ConversionRequest(str(source), "onnx"), tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()
    monkeypatch.undo()
    (tmp_path / "net.onnx").write_text("mine")
    with pytest.raises(StorageError):
        convert(ConversionRequest(str(source), "onnx"), tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx").read_text() == "mine"


def test_a_program_that_calls_more_than_operators_that_compute_is_refused(tmp_path):
    @torch.library.custom_op("somebody::does_more", mutates_args=())
    def does_more(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("it was run")

    does_more.register_fake(torch.empty_like)

    class Calls(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return does_more(images).mean((2, 3))

    path = write_pt2(tmp_path / "calls.pt2", Calls())
    with pytest.raises(CheckpointError, match=r"operator somebody.does_more.default .*does not run it"):
        read(path, Pt2Options())
