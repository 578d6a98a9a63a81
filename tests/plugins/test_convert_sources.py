"""`edgeopt convert` from files as people have them: ONNX of older sets, of other tools, and Keras files of any age."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_convert import edgeopt

from edgeopt.errors import CheckpointError
from edgeopt_onnx.predictor import OnnxPredictor
from edgeopt_tensorflow.onnx_reader import read
from edgeopt_tensorflow.options import OnnxReaderOptions
from edgeopt_tflite.predictor import TflitePredictor

pytestmark = pytest.mark.usefixtures("imports_done_once")

SIZE = 16


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def write(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    *,
    opset: int = 13,
    batch: int | str = "N",
    returned: tuple[int | str, ...] = ("N", 4),
    ir_version: int = 8,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(returned))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version), str(path)
    )
    return path


def classifier(pool: str = "y") -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["p"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["p"], [pool]),
    ]
    return nodes, {"w": values(4, 3, 3, 3)}


@pytest.mark.parametrize("opset", [7, 9, 10])
def test_an_old_operator_set_is_lifted_and_the_output_flattened(opset, tmp_path):
    path = write(tmp_path / "old.onnx", *classifier(), opset=opset, returned=("N", 4, 1, 1), ir_version=3)
    state = read(path, OnnxReaderOptions())
    assert state.foreign.proto.opset_import[0].version >= 11
    assert state.foreign.batch is None
    images = values(3, 3, SIZE, SIZE)
    assert state.foreign.outputs(images)[0].shape == (3, 4)
    newer = read(write(tmp_path / "new.onnx", *classifier(), opset=13, returned=("N", 4, 1, 1)), OnnxReaderOptions())
    assert np.allclose(state.foreign.outputs(images)[0], newer.foreign.outputs(images)[0], atol=1e-5)


def test_an_operator_set_that_is_too_old_is_refused_with_what_to_do(tmp_path):
    path = write(tmp_path / "old.onnx", *classifier(), opset=6, returned=("N", 4, 1, 1), ir_version=3)
    with pytest.raises(CheckpointError, match="opset 6; 7 and later are read") as caught:
        read(path, OnnxReaderOptions())
    assert "opset 11 or later" in (caught.value.problems[0].hint or "")


def test_weights_that_are_made_while_it_runs_become_constants(tmp_path):
    """As the test data of the onnx package is written: no initializer among the inputs, IR version 3."""
    nodes, _ = classifier()
    value = numpy_helper.from_array(np.array([0.5], np.float32), "value")
    made = helper.make_node("ConstantOfShape", ["shape"], ["w"], value=value)
    path = write(
        tmp_path / "light.onnx",
        [made, *nodes],
        {"shape": np.array([4, 3, 3, 3], np.int64)},
        opset=9,
        returned=("N", 4, 1, 1),
        ir_version=3,
    )
    state = read(path, OnnxReaderOptions())
    assert "ConstantOfShape" not in {node.op_type for node in state.foreign.proto.graph.node}
    assert state.foreign.parameter_count >= 4 * 3 * 3 * 3


def test_a_size_of_minus_one_is_open(tmp_path):
    path = write(tmp_path / "open.onnx", *classifier(), batch=-1, returned=(-1, 4, 1, 1))
    state = read(path, OnnxReaderOptions())
    assert state.foreign.batch is None
    assert state.foreign.outputs(values(2, 3, SIZE, SIZE))[0].shape == (2, 4)


def test_a_batch_that_is_free_in_name_alone_is_one_image(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "s"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    constants = {"s": np.array([1, 3 * SIZE * SIZE], np.int64), "w": values(3 * SIZE * SIZE, 4)}
    state = read(write(tmp_path / "fixed.onnx", nodes, constants), OnnxReaderOptions())
    assert state.foreign.batch == 1
    assert state.foreign.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert state.foreign.outputs(values(3, 3, SIZE, SIZE))[0].shape == (3, 4)
    done = edgeopt("fixed.onnx", "--to", "tensorrt", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def heads(path: Path, *more: onnx.NodeProto) -> Path:
    """A network with a map channels first, the class of each place, and a value a class; and what `more` adds to it."""
    nodes, constants = classifier("pooled")
    nodes += [
        helper.make_node("Conv", ["b", "w2"], ["map"], strides=[2, 2]),
        helper.make_node("ArgMax", ["map"], ["class"], axis=1, keepdims=0),
        helper.make_node("Flatten", ["pooled"], ["scores/0"]),
        *more,
    ]
    infos = [
        helper.make_tensor_value_info("map", TensorProto.FLOAT, ["N", 5, 8, 8]),
        helper.make_tensor_value_info("class", TensorProto.INT64, ["N", 8, 8]),
        helper.make_tensor_value_info("scores/0", TensorProto.FLOAT, ["N", 4]),
    ]
    shapes = {"NonZero": [2, "k"], "Shape": [4], "NonMaxSuppression": ["k", 3]}
    infos += [helper.make_tensor_value_info(node.output[0], TensorProto.INT64, shapes[node.op_type]) for node in more]
    constants |= {"w2": values(5, 4, 1, 1)}
    graph = helper.make_graph(
        nodes,
        "heads",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        infos,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


def test_several_outputs_keep_their_names_and_the_order_of_their_axes(tmp_path):
    state = read(heads(tmp_path / "heads.onnx"), OnnxReaderOptions())
    assert (state.task.name, state.output_names) == ("numbers", ("map", "class", "scores/0"))
    images = values(3, 3, SIZE, SIZE)
    answers = state.foreign.outputs(images)
    assert [each.shape for each in answers] == [(3, 5, 8, 8), (3, 8, 8), (3, 4)]
    done = edgeopt("heads.onnx", "--to", "tflite", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with TflitePredictor(tmp_path / "heads.tflite", threads=1) as predictor:
        assert [each.name for each in predictor.output_infos] == ["map", "class", "scores/0"]
        for given, expected in zip(predictor.predict(images), answers, strict=True):
            assert given.shape == expected.shape
            assert np.allclose(given, expected, atol=1e-4)


def test_one_output_of_several_is_kept_and_what_leads_to_no_other_dropped(tmp_path):
    path = heads(tmp_path / "heads.onnx")
    state = read(path, OnnxReaderOptions(output="scores/0"))
    assert (state.task.name, len(state.classes)) == ("classification", 4)
    assert {node.op_type for node in state.foreign.proto.graph.node} == {
        "Conv",
        "Relu",
        "MaxPool",
        "GlobalAveragePool",
        "Flatten",
    }
    images = values(2, 3, SIZE, SIZE)
    whole = read(path, OnnxReaderOptions()).foreign.outputs(images)
    assert np.array_equal(state.foreign.outputs(images)[0], whole[2])
    only_map = read(path, OnnxReaderOptions(output="map"))
    assert (only_map.task.name, only_map.output_names) == ("numbers", ("map",))


@pytest.mark.parametrize(
    ("node", "message", "hint"),
    [
        (helper.make_node("NonZero", ["pooled"], ["found"]), "'found' is int64", "source.output: map, class, scores/0"),
        (helper.make_node("Shape", ["map"], ["sizes"]), "'sizes' is int64 .4,., not numbers with a row", "source.out"),
    ],
)
def test_outputs_without_a_row_an_image_are_refused_with_those_that_have_one(node, message, hint, tmp_path):
    with pytest.raises(CheckpointError, match=message) as error:
        read(heads(tmp_path / "heads.onnx", node), OnnxReaderOptions())
    assert hint in error.value.problems[0].hint


def test_a_wrong_output_and_suppression_are_refused_with_what_there_is(tmp_path):
    path = heads(tmp_path / "heads.onnx")
    with pytest.raises(CheckpointError, match="has no output 'mab'") as error:
        read(path, OnnxReaderOptions(output="mab"))
    assert error.value.problems[0].hint == "did you mean 'map'?"
    with pytest.raises(CheckpointError, match=r"source\.classes are of logits, and it returns map"):
        read(path, OnnxReaderOptions(classes=("a", "b")))
    suppressed = heads(tmp_path / "nms.onnx", helper.make_node("NonMaxSuppression", ["map", "map"], ["kept"]))
    with pytest.raises(CheckpointError, match="removes overlapping boxes itself"):
        read(suppressed, OnnxReaderOptions())
    assert read(suppressed, OnnxReaderOptions(output="class")).output_names == ("class",)


def test_names_that_tensorflow_cannot_take_are_changed(tmp_path):
    nodes, constants = classifier("my pool: 1")
    for number, node in enumerate(nodes):
        node.name = f"{node.op_type}@{number}: my net"
    nodes += [
        helper.make_node("Flatten", ["my pool: 1"], ["flat@0"], name="Flatten@0"),
        helper.make_node("Softmax", ["flat@0"], ["y"], name="Softmax@0"),
    ]
    write(tmp_path / "names.onnx", nodes, constants)
    done = edgeopt("names.onnx", "--to", "tflite", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.mark.parametrize("name", ["densenet121", "inception_v2", "shufflenet"])
def test_old_networks_of_the_onnx_package_are_read(name):
    """Opset 9 with paddings in poolings, IR version 3, weights that are made while the file runs."""
    state = read(LIGHT / f"light_{name}.onnx", OnnxReaderOptions())
    assert len(state.classes) == 1000
    assert state.foreign.proto.opset_import[0].version >= 11


def test_an_old_network_of_the_onnx_package_is_converted(tmp_path):
    done = edgeopt(str(LIGHT / "light_shufflenet.onnx"), "--to", "tflite", "--out", "net.tflite", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


ENDS = {
    "sigmoid": ([helper.make_node("Sigmoid", ["v"], ["y"])], ("N", 1)),
    "logit": ([helper.make_node("Identity", ["v"], ["y"])], ("N", 1)),
    "flat": ([helper.make_node("Sigmoid", ["v"], ["q"]), helper.make_node("Reshape", ["q", "s"], ["y"])], ("N",)),
    "by-value": ([helper.make_node("Neg", ["v"], ["n"]), helper.make_node("HardSigmoid", ["n"], ["y"])], ("N", 1)),
}


@pytest.mark.parametrize("name", ENDS)
def test_one_output_for_two_classes_becomes_their_logits(name, tmp_path):
    end, returned = ENDS[name]
    nodes, constants = classifier("p4")
    nodes += [
        helper.make_node("Flatten", ["p4"], ["f"]),
        helper.make_node("Gemm", ["f", "g", "c"], ["v"]),
        *end,
    ]
    constants |= {"g": 0.05 * values(4, 1), "c": np.array([0.3], np.float32), "s": np.array([-1], np.int64)}
    path = write(tmp_path / "one.onnx", nodes, constants, returned=returned)
    images = values(3, 3, SIZE, SIZE)
    given = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": images})[0]
    state = read(path, OnnxReaderOptions())
    logits = state.foreign.outputs(images)[0]
    assert state.classes == ("0", "1")
    expected = given.reshape(-1) if name == "logit" else np.log(given / (1 - given)).reshape(-1)
    assert np.allclose(logits, np.stack([np.zeros(3), expected], axis=1), atol=1e-4)
    if name == "sigmoid":
        done = edgeopt("one.onnx", "--to", "tflite", cwd=tmp_path)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def keras_found(tmp_path_factory):
    script, folder = Path(__file__).with_name("keras_sources.py"), tmp_path_factory.mktemp("keras")
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "2,1"},  # as OpenMP allows it, a number for each level
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads(done.stdout.splitlines()[-1]), "folder": folder}


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("mixed_float16.keras", 5e-3),
        ("mixed_bfloat16.keras", 3e-2),
        ("float16.keras", 5e-3),
        ("sigmoid.keras", 1e-5),
        ("old.h5", 1e-5),
        ("old.keras", 1e-5),
    ],
)
def test_keras_files_of_any_age_and_precision_answer_as_their_networks(name, limit, keras_found):
    """Half precision differs from float32 by its own rounding: 2**-11 of a value, 2**-8 for bfloat16."""
    assert keras_found[name] < limit


def test_a_network_of_keras_2_is_kept_and_its_calls_are_arithmetic(keras_found):
    assert keras_found["kept"] < 1e-5
    assert "calls io.read_file, which edgeopt does not run from a file" in keras_found["refused"]


def test_several_outputs_of_keras_2_keep_their_names_and_the_order_of_their_axes(keras_found):
    """By their keys, else by their layers; kept as a SavedModel, and in a file of another format."""
    for name in ("keys.h5", "keys.keras"):
        assert keras_found[name][:3] == ["OldKerasModel", "numbers", ["above", "map", "scores"]]
    assert keras_found["listed.h5"][:3] == ["OldKerasModel", "numbers", ["tf.cast", "features", "scores"]]
    for name in ("keys.h5", "keys.keras", "listed.h5"):
        for above, *gaps in keras_found[name][3]:
            assert above == 0 and max(gaps) < 1e-5
    folder = keras_found["folder"]
    done = edgeopt(
        "keys.h5", "--to", "tflite", "--set", "source.mean=[0,0,0]", "--set", "source.std=[1,1,1]", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    answers = np.load(folder / "answers.npz")
    with TflitePredictor(folder / "keys.tflite", threads=1) as predictor:
        names = [each.name for each in predictor.output_infos]
        given = predictor.predict(answers["images"])
    assert names == ["above", "map", "scores"]
    for name, answer in zip(names, given, strict=True):
        assert answer.shape == answers[name].shape
        assert np.allclose(answer, answers[name], atol=1e-4)


def test_one_output_of_keras_2_is_kept_of_several(keras_found):
    assert keras_found["chosen"] == ["classification", 3, pytest.approx(0, abs=1e-5)]
    assert keras_found["only map"] == ["features"]
    assert "has no output 'score', as source.output says" in keras_found["wrong"]
    assert "did you mean 'scores'?" in keras_found["wrong"]


def wanting(path: Path, location: str, *, inside: bool = False) -> Path:
    """A classifier whose weights stand at `location`, as an initializer or in a node `inside` of the graph."""
    nodes, constants = classifier("p4")
    nodes.append(helper.make_node("Flatten", ["p4"], ["y"]))
    made = numpy_helper.from_array(constants.pop("w"), "w")
    made.ClearField("raw_data")
    made.data_location = TensorProto.EXTERNAL
    made.external_data.add(key="location", value=location)
    if inside:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=made))
    write(path, nodes, constants)
    if not inside:
        model = onnx.load(path, load_external_data=False)
        model.graph.initializer.append(made)
        path.write_bytes(model.SerializeToString())
    return path


PLACES = [
    "../secret.bin",
    "own/../../secret.bin",
    "{outside}/secret.bin",
    "link.bin",
    "linked/secret.bin",
    "C:\\secret.bin",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, with links that lead out of it to a file that has the right size."""
    weights = classifier()[1]["w"].tobytes()
    (tmp_path / "secret.bin").write_bytes(weights)
    (model := tmp_path / "model" / "own").mkdir(parents=True)
    (model / "weights.bin").write_bytes(weights)
    (model.parent / "link.bin").symlink_to(tmp_path / "secret.bin")
    (model.parent / "linked").symlink_to(tmp_path)
    return model.parent


@pytest.mark.parametrize("inside", [False, True], ids=["initializer", "constant"])
@pytest.mark.parametrize("place", PLACES)
def test_weights_outside_of_the_models_folder_are_not_read(place: str, inside: bool, folder: Path) -> None:
    location = place.format(outside=folder.parent)
    path = wanting(folder / "net.onnx", location, inside=inside)
    with pytest.raises(CheckpointError) as caught:
        read(path, OnnxReaderOptions())
    (problem,) = caught.value.problems
    assert f"'w' from {location!r}, outside of its folder" in problem.message
    assert "beside the model" in (problem.hint or "")
    if not inside:
        with pytest.raises(ValueError, match="cannot open"):
            OnnxPredictor(path)


def test_weights_in_the_models_folder_are_read(folder: Path) -> None:
    state = read(wanting(folder / "net.onnx", "own/weights.bin"), OnnxReaderOptions())
    assert state.foreign.outputs(values(2, 3, SIZE, SIZE))[0].shape == (2, 4)


def test_convert_says_which_weights_stand_elsewhere(folder: Path) -> None:
    wanting(folder / "net.onnx", "../secret.bin")
    done = edgeopt("net.onnx", "--to", "tflite", cwd=folder)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "'../secret.bin', outside of its folder" in done.stderr
