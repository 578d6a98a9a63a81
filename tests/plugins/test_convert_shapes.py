"""`edgeopt convert` of models of any picture shape: 48 × 192, one channel, and sizes that a file leaves open."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from test_convert import edgeopt
from torch import nn

from edgeopt.errors import CheckpointError
from edgeopt.option_values import GREY_MEAN, size_from_text
from edgeopt.types import ModelState
from edgeopt_onnx.predictor import OnnxPredictor
from edgeopt_pt2.options import Pt2Options
from edgeopt_pt2.reading import read_program
from edgeopt_tensorflow.onnx_reader import read as read_onnx
from edgeopt_tensorflow.options import OnnxReaderOptions

pytestmark = pytest.mark.usefixtures("imports_done_once")

WIDE = (48, 192)


def module(channels: int = 1) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(channels, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    return nn.Sequential(*layers).eval()


def write_pt2(path: Path, *open_axes: int, channels: int = 1) -> Path:
    axes: dict[int, object] = dict.fromkeys((0, *open_axes), torch.export.Dim.AUTO)
    images = torch.randn(2, channels, *WIDE)
    torch.export.save(torch.export.export(module(channels), (images,), dynamic_shapes=(axes,)), path)
    return path


def write_onnx(path: Path, *shape: int | str) -> Path:
    """A network whose channels stand first, or last where they do in `shape`."""
    is_last = shape[-1] in (1, 3)
    channels = shape[-1] if is_last else shape[1]
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])] if is_last else []
    nodes += [
        helper.make_node("Conv", ["t" if is_last else "x", "w"], ["a"]),
        helper.make_node("GlobalMaxPool", ["a"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    weight = np.random.default_rng(0).normal(size=(4, channels, 3, 3)).astype(np.float32)  # type: ignore[arg-type]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))
    returned = helper.make_tensor_value_info("y", TensorProto.FLOAT, [shape[0], 4])
    graph = helper.make_graph(nodes, "g", [given], [returned], [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


def images(state: ModelState) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(3, *state.input_shape)).astype(np.float32)


@pytest.mark.parametrize("open_axes", [(), (2, 3), (3,)])
def test_a_program_of_any_shape_answers_as_its_module(open_axes: tuple[int, ...], tmp_path: Path) -> None:
    path = write_pt2(tmp_path / "net.pt2", *open_axes)
    state = read_program(path, Pt2Options(image_size=WIDE if open_axes else None))
    assert state.preprocessing.shape == (*WIDE, 1)
    assert state.preprocessing.mean == GREY_MEAN
    shown = torch.from_numpy(images(state))
    torch.testing.assert_close(state.program.module()(shown), module()(shown))


def test_what_a_program_leaves_open_is_to_be_chosen(tmp_path: Path) -> None:
    path = write_pt2(tmp_path / "net.pt2", 2, 3)
    with pytest.raises(CheckpointError, match=r"takes images of any size[\s\S]*--size 96x160"):
        read_program(path, Pt2Options())
    half = write_pt2(tmp_path / "half.pt2", 3)
    with pytest.raises(CheckpointError, match=r"takes images of any size, 48 × any px"):
        read_program(half, Pt2Options())
    with pytest.raises(CheckpointError, match=r"takes images of 48 × any px, and not of 32 × 96 px"):
        read_program(half, Pt2Options(image_size=(32, 96)))
    with pytest.raises(CheckpointError, match=r"source.mean has 1 numbers, and the model takes 3 numbers"):
        read_program(write_pt2(tmp_path / "rgb.pt2", channels=3), Pt2Options(mean=(0.5,)))


def test_outputs_that_the_size_decides_are_counted_at_the_chosen_one(tmp_path: Path) -> None:
    class Rows(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((1, 3))

    class Fours(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((1, 2, 3)).reshape(4, -1)

    for name, network, axes in (("rows", Rows(), (0, 2)), ("fours", Fours(), (0,))):
        shapes = (dict.fromkeys(axes, torch.export.Dim.AUTO),)
        program = torch.export.export(network, (torch.randn(8, 1, *WIDE),), dynamic_shapes=shapes)
        torch.export.save(program, tmp_path / f"{name}.pt2")
    state = read_program(tmp_path / "rows.pt2", Pt2Options(image_size=WIDE))
    assert len(state.classes) == WIDE[0]
    with pytest.raises(CheckpointError, match=r"is float32 4 x \S+, not float32 or integers with a row an image"):
        read_program(tmp_path / "fours.pt2", Pt2Options())


@pytest.mark.parametrize(
    "shape", [("N", 1, 48, 192), ("N", 3, 48, 192), ("N", 48, 192, 1), ("N", 1, -1, -1), (-1, 3, "h", "w")]
)
def test_onnx_of_any_shape_is_read(shape: tuple[int | str, ...], tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "net.onnx", *shape)
    is_open = not {48, 192} <= set(shape)
    state = read_onnx(path, OnnxReaderOptions(image_size=WIDE if is_open else None))
    channels = 3 if 3 in shape else 1
    assert state.preprocessing.shape == (*WIDE, channels)
    assert state.foreign.outputs(images(state))[0].shape == (3, 4)
    wrong = OnnxReaderOptions(image_size=None if is_open else 64)
    with pytest.raises(CheckpointError, match="any size" if is_open else "48 × 192 px, and not of 64 px"):
        read_onnx(path, wrong)


def test_an_open_program_is_converted_at_the_size_of_the_command(tmp_path: Path) -> None:
    write_pt2(tmp_path / "net.pt2", 2, 3)
    source = "net.pt2"
    done = edgeopt(source, "--to", "onnx", "--size", "48x192", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with OnnxPredictor(tmp_path / "net.onnx") as opened:
        assert opened.input_info.shape == ("batch", 1, *WIDE)
        assert opened.predict(np.zeros((2, 1, *WIDE), np.float32))[0].shape == (2, 4)
    (entry,) = [each for each in onnx.load(tmp_path / "net.onnx").metadata_props if "card" in each.key]
    told = json.loads(entry.value)["preprocessing"]
    assert (told["image_size"], told["channel_order"]) == (list(WIDE), "grey")
    for size, said in (("48by192", "no number from 8"), ("4", "no number from 8"), ("48x192x3", "nor two")):
        refused = edgeopt(source, "--to", "onnx", "--size", size, cwd=tmp_path)
        assert refused.returncode == 2
        assert said in refused.stderr


def test_sizes_as_a_command_line_has_them() -> None:
    assert size_from_text("96") == size_from_text("96x96") == 96
    assert size_from_text("48 × 192") == WIDE
