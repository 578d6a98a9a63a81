"""`edgeopt convert` of networks as they were written in 2012 to 2014 (AlexNet, ZFNet), in the ONNX of their time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_convert import edgeopt

from edgeopt_tensorflow.onnx_reader import read
from edgeopt_tensorflow.options import OnnxReaderOptions

pytestmark = pytest.mark.usefixtures("imports_done_once")

SIZE, CLASSES = 16, 4
FEATURES = 12 * 3 * 3


def weights(*shape: int) -> np.ndarray:
    random = np.random.default_rng(shape)
    return (random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def network(
    path: Path, opset: int, batch: int | str, shape: tuple[int, int], *, mask: bool, normalized_first: bool = False
) -> Path:
    """Local response normalization before or behind the pooling, a grouped convolution, paddings at one end alone, a
    Reshape to `shape` as literals, Dropout with or without its mask, and initializers among the inputs.
    """
    order = [
        helper.make_node("LRN", ["?"], ["?"], size=5, alpha=1e-2, beta=0.75, bias=1.0),
        helper.make_node("MaxPool", ["?"], ["?"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
    ]
    first, second = order if normalized_first else order[::-1]
    for node, given, made in ((first, "a", "b"), (second, "b", "c")):
        node.input[0], node.output[0] = given, made
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["f"], kernel_shape=[5, 5], pads=[2, 2, 2, 2]),
        helper.make_node("Relu", ["f"], ["a"]),
        first,
        second,
        helper.make_node("Conv", ["c", "w2", "b2"], ["d"], kernel_shape=[3, 3], group=2, pads=[0, 0, 1, 1]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("AveragePool", ["e"], ["g"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
        helper.make_node("Reshape", ["g", "shape"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["i"]),
        helper.make_node("Dropout", ["i"], ["j", "mask"] if mask else ["j"], ratio=0.5),
        helper.make_node("Gemm", ["j", "w4", "b4"], ["k"], transB=1),
        helper.make_node("Softmax", ["k"], ["y"]),
    ]
    constants = {
        "w1": weights(8, 3, 5, 5),
        "b1": weights(8),
        "w2": weights(12, 4, 3, 3),
        "b2": weights(12),
        "w3": weights(16, FEATURES),
        "b3": weights(16),
        "w4": weights(CLASSES, 16),
        "b4": weights(CLASSES),
        "shape": np.array(shape, np.int64),
    }
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])]
    for name, value in constants.items():
        given.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape))
    graph = helper.make_graph(
        nodes,
        "old",
        given,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


KINDS = {
    "opset 7, one image": {"opset": 7, "batch": 1, "shape": (1, FEATURES), "mask": True, "normalized_first": True},
    "opset 8, any batch": {"opset": 8, "batch": "N", "shape": (-1, FEATURES), "mask": False},
    "opset 9, any batch": {"opset": 9, "batch": "N", "shape": (0, -1), "mask": True},
    "opset 9, free in name alone": {"opset": 9, "batch": "N", "shape": (1, FEATURES), "mask": False},
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_old_network_answers_as_onnx_runtime_has_it(kind: str, tmp_path: Path) -> None:
    """Read in its own opset and lifted, both run; a Reshape to one image takes one, whatever the input says."""
    path = network(tmp_path / "old.onnx", **KINDS[kind])
    state = read(path, OnnxReaderOptions())
    assert state.foreign.batch == (1 if KINDS[kind]["shape"][0] == 1 else None)
    images = np.random.default_rng(0).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32)
    logits = state.foreign.outputs(images)[0]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    alone = np.concatenate([session.run(None, {"x": image[None]})[0] for image in images])
    np.testing.assert_allclose(logits, alone, atol=1e-6)
    assert np.ptp(logits[:, 0]) > 1e-3


@pytest.mark.parametrize("kind", ["opset 7, one image", "opset 9, any batch"])
def test_an_old_network_becomes_a_tflite_file_that_agrees(kind: str, tmp_path: Path) -> None:
    network(tmp_path / "old.onnx", **KINDS[kind])
    done = edgeopt("old.onnx", "--to", "tflite", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = dict(line.split("  ", 1) for line in done.stdout.splitlines() if "  " in line)
    assert found["same top-1 class"].strip() == "100.0 %"
    assert float(found["largest difference"].split(",")[0]) < 1e-5
