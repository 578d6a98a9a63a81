"""Bundles for TensorRT: what is inside, what builds from it, what is refused, and how an engine is run."""

from __future__ import annotations

import ast
import ctypes
import json
import py_compile
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tensorrt_programs import DATA, LAYERS, SIZE, as_state, quantized, small_resnet

from edgeopt.errors import ExportError, NothingChangedError, RecipeError
from edgeopt.pipeline.runner import check
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import tiny_program
from edgeopt.testing.exporter import export_file
from edgeopt.types import ExportResult, ModelState
from edgeopt_tensorrt import build_engine as script
from edgeopt_tensorrt.build_engine import BuildError, EngineSettings, build_engine
from edgeopt_tensorrt.bundle import read_bundle, write_bundle
from edgeopt_tensorrt.gpu import can_run, gpu_count
from edgeopt_tensorrt.predictor import EnginePredictor, open_bundle

tensorrt_rtx = pytest.importorskip("tensorrt_rtx")
without_gpu = pytest.mark.skipif(gpu_count() > 0, reason="says what happens where no GPU is")

REGISTRY = load_registry()
Exported = tuple[Path, ExportResult]


def export(name: str, options: dict[str, Any], state: ModelState, folder: Path) -> Exported:
    return export_file(resolve(ExporterPlugin, name, options, REGISTRY), state, folder)


@pytest.fixture(scope="module")
def int8() -> ModelState:
    return as_state(quantized(small_resnet()), "int8")


@pytest.fixture(scope="module")
def bundle(int8: ModelState, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    options = {"batch": {"min": 1, "opt": 2, "max": 4}, "workspace_mib": 64}
    return export("tensorrt", options, int8, tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def rtx_bundle(int8: ModelState, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    options = {"compute_capabilities": ["8.6", "8.9"]}
    return export("tensorrt-rtx", options, int8, tmp_path_factory.mktemp("rtx"))


@pytest.fixture
def unpacked(bundle: Exported, tmp_path: Path) -> Path:
    with zipfile.ZipFile(bundle[0]) as archive:
        archive.extractall(tmp_path)
    return tmp_path


# ---- the bundle ----------------------------------------------------------------------------------------------------


def test_a_bundle_has_what_the_device_needs(bundle: Exported) -> None:
    members = read_bundle(bundle[0])
    assert {*members} >= {"README.txt", "build.json", "build.sh", "build_engine.py", "card.json", "model.onnx"}
    card = json.loads(members["card.json"])
    assert (card["runtime"], card["input"]["name"], card["output"]["name"]) == ("tensorrt", "input", "logits")
    assert card["input"]["shape"] == ["batch", 3, SIZE, SIZE]
    settings = EngineSettings.from_json(members["build.json"].decode())
    assert settings.shapes() == ((1, 3, SIZE, SIZE), (2, 3, SIZE, SIZE), (4, 3, SIZE, SIZE))
    assert (settings.int8, settings.float16, settings.workspace_mib) == (True, False, 64)
    model = onnx.load_from_string(members["model.onnx"])
    assert [each.key for each in model.metadata_props] == ["edgeopt_card"]


def test_the_readme_says_how_to_build_by_hand(bundle: Exported) -> None:
    text = read_bundle(bundle[0])["README.txt"].decode()
    (line,) = [line.strip() for line in text.splitlines() if line.strip().startswith("trtexec")]
    shapes = [f"--{name}Shapes=input:{batch}x3x{SIZE}x{SIZE}" for name, batch in (("min", 1), ("opt", 2), ("max", 4))]
    assert {*line.split()} >= {"--onnx=model.onnx", "--saveEngine=model.engine", "--stronglyTyped", *shapes}
    assert "--memPoolSize=workspace:64" in line


@without_gpu
def test_without_a_gpu_nothing_claims_that_tensorrt_was_run(bundle: Exported, rtx_bundle: Exported) -> None:
    _, result = bundle
    assert (result.facts["engine_bytes"], result.stand_in) == (None, "onnxruntime")
    assert any("no engine was built" in text and "build.sh" in text for text in result.warnings)
    assert rtx_bundle[1].stand_in == "onnxruntime"


def test_the_shell_script_says_what_is_missing(unpacked: Path, tmp_path: Path) -> None:
    """With neither Python's TensorRT nor `trtexec`; the script itself is read by the shell."""
    path = tmp_path / "bin"
    path.mkdir()
    (path / "dirname").symlink_to("/usr/bin/dirname")
    done = subprocess.run(
        ["/bin/sh", str(unpacked / "build.sh")],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "TensorRT is not here" in done.stderr


@pytest.mark.parametrize(("version", "types"), [("--stronglyTyped", "--stronglyTyped"), ("--fp16", "--int8")])
def test_the_shell_script_calls_trtexec(unpacked: Path, tmp_path: Path, version: str, types: str) -> None:
    """A stand-in for `trtexec` of TensorRT 10, and of 8, which must be told about int8."""
    path = tmp_path / "bin"
    path.mkdir()
    for name in ("dirname", "grep"):
        (path / name).symlink_to(f"/usr/bin/{name}")
    stand_in = path / "trtexec"
    stand_in.write_text(f'#!/bin/sh\ncase "$1" in --help) echo "{version}";; *) echo "$@";; esac\n')
    stand_in.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", str(unpacked / "build.sh")],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.split()[-1] == types
    assert "--onnx=model.onnx" in done.stdout


def test_the_build_script_runs_on_an_old_python_and_alone(unpacked: Path) -> None:
    path = unpacked / "build_engine.py"
    py_compile.compile(str(path), doraise=True)
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    modules = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names} | {
        str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    }
    assert modules <= {*sys.stdlib_module_names}


def test_the_build_script_builds_what_the_bundle_says(unpacked: Path) -> None:
    """In a process without edgeopt, with TensorRT for RTX, whose interface is the same."""
    command = [sys.executable, "-I", str(unpacked / "build_engine.py"), "--module", "tensorrt_rtx"]
    for _ in range(2):  # the second build reads the first one's timing cache
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert "model.engine" in done.stdout
    assert (unpacked / "model.engine").stat().st_size > 0
    assert (unpacked / "timing.cache").exists()


def test_the_build_script_explains_what_it_cannot_do(unpacked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--folder", str(unpacked)]
    assert script.main([*folder, "--module", "no_such_tensorrt"]) == 2
    assert "JetPack" in capsys.readouterr().err
    (unpacked / "model.onnx").write_bytes(b"not a model")
    assert script.main([*folder, "--module", "tensorrt_rtx"]) == 1
    assert "cannot build model.onnx" in capsys.readouterr().err


def test_a_bundle_is_the_same_bytes_whatever_the_order_and_the_time(tmp_path: Path) -> None:
    members = {"b.txt": b"two", "a.txt": b"one", "build.sh": b"#!/bin/sh\n"}
    write_bundle(tmp_path / "first.zip", members)
    write_bundle(tmp_path / "second.zip", dict(reversed(members.items())))
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    assert read_bundle(tmp_path / "first.zip") == members
    with zipfile.ZipFile(tmp_path / "first.zip") as archive:
        assert archive.getinfo("build.sh").external_attr >> 16 == 0o100755


def test_another_zip_is_not_a_bundle(tmp_path: Path) -> None:
    write_bundle(tmp_path / "other.zip", {"notes.txt": b"hello"})
    with pytest.raises(ValueError, match=r"has no model\.onnx"):
        open_bundle(tmp_path / "other.zip", "tensorrt", 1)


# ---- TensorRT for RTX ----------------------------------------------------------------------------------------------


def test_every_quantized_layer_becomes_int8_in_the_engine(rtx_bundle: Exported) -> None:
    path, result = rtx_bundle
    assert result.outside == ()
    assert [result.facts[name] for name in ("layers", "layers_quantized", "layers_int8")] == [LAYERS] * 3
    assert result.facts["compute_capabilities"] == ["8.6", "8.9"]
    members = read_bundle(path)
    assert len(members["model.engine"]) == result.facts["engine_bytes"]
    assert b"accelerators={sm86 sm89 }" in members["model.engine"]


def test_a_float_program_becomes_a_float_engine(tmp_path: Path) -> None:
    _, result = export("tensorrt-rtx", {}, tiny_program(), tmp_path)
    assert (result.facts["layers"], result.facts["layers_quantized"], result.outside) == (4, 0, ())
    assert result.facts["compute_capabilities"] == "8.0 and later"


def test_float16_is_in_the_file_and_in_the_engine(tmp_path: Path) -> None:
    state = tiny_program()
    path, result = export("tensorrt-rtx", {"precision": "float16"}, state, tmp_path)
    assert (result.precision, result.input.dtype, result.outputs[0].dtype) == ("float16", "float32", "float32")
    members = read_bundle(path)
    model = onnx.load_from_string(members["model.onnx"])
    kinds = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert json.loads(members["card.json"])["precision"] == "float16"
    assert b"type=half" in members["model.engine"]
    batch = np.random.default_rng(0).normal(size=(3, *state.input_shape)).astype(np.float32)
    logits = open_bundle(path, "tensorrt_rtx", 1).predict(batch)[0]
    assert logits.shape == (3, len(state.classes))


def test_a_file_that_takes_pixels_becomes_an_engine_that_takes_pixels(int8: ModelState, tmp_path: Path) -> None:
    options = {"input": {"kind": "uint8-nhwc"}, "compute_capabilities": ["8.6"]}
    path, result = export("tensorrt-rtx", options, int8, tmp_path)
    assert (result.input.dtype, result.input.layout, result.input.holds) == ("uint8", "NHWC", "pixels")
    assert result.facts["layers_int8"] == LAYERS
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    assert open_bundle(path, "tensorrt_rtx", 1).predict(pixels)[0].shape == (2, len(int8.classes))


def test_what_the_builder_refuses_is_told_in_its_words() -> None:
    settings = EngineSettings("input", (3, SIZE, SIZE))
    with pytest.raises(BuildError):
        build_engine(tensorrt_rtx, b"not a model", settings)


def test_a_compute_capability_that_is_not_there_is_refused(bundle: Exported) -> None:
    settings = EngineSettings("input", (3, SIZE, SIZE), compute_capabilities=("5.0",))
    with pytest.raises(BuildError, match=r"cannot build for compute capability 5\.0"):
        build_engine(tensorrt_rtx, read_bundle(bundle[0])["model.onnx"], settings)


# ---- ONNX files of others ------------------------------------------------------------------------------------------


class _File:
    """A model of the framework "onnx", as its reader gives it."""

    loader = ""
    parameter_count = 0

    def __init__(self, content: bytes) -> None:
        self.content = content

    def save(self, folder: Path) -> None:
        (folder / "model.onnx").write_bytes(self.content)
        (folder / "notes.json").write_text("{}")

    def outputs(self, batch: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.zeros((len(batch), len(DATA.classes)), np.float32),)


def _onnx_state(int8: ModelState, content: bytes) -> ModelState:
    return replace(int8, model=_File(content), framework="onnx")


def test_an_onnx_file_goes_into_a_bundle_as_it_is(int8: ModelState, bundle: Exported, tmp_path: Path) -> None:
    content = read_bundle(bundle[0])["model.onnx"]
    path, result = export("onnx-tensorrt-rtx", {"compute_capabilities": ["8.6"]}, _onnx_state(int8, content), tmp_path)
    assert onnx.load_from_string(read_bundle(path)["model.onnx"]) == onnx.load_from_string(content)
    assert (result.facts["layers_quantized"], result.facts["layers_int8"]) == (LAYERS, LAYERS)
    assert result.input.shape == (1, 3, SIZE, SIZE)
    batch = np.random.default_rng(0).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32)
    expected = open_bundle(bundle[0], "tensorrt", 1).predict(batch)[0]
    np.testing.assert_array_equal(open_bundle(path, "tensorrt_rtx", 1).predict(batch)[0], expected)


def test_an_onnx_file_that_tensorrt_refuses_is_not_bundled(int8: ModelState, bundle: Exported, tmp_path: Path) -> None:
    model = onnx.load_from_string(read_bundle(bundle[0])["model.onnx"])
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and not tensor.dims:
            tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, onnx.TensorProto.INT8, [], [7]))
    with pytest.raises(ExportError, match="zero point that is not 0") as error:
        export("onnx-tensorrt", {}, _onnx_state(int8, model.SerializeToString()), tmp_path)
    assert len(error.value.problems) == sum("Linear" in node.op_type for node in model.graph.node) - LAYERS


@pytest.mark.parametrize(
    ("sizes", "message"), [((4, 3, SIZE, SIZE), "is 4 x 3 x"), ((1, SIZE, SIZE, 3), "channels first")]
)
def test_an_onnx_file_of_other_images_is_refused(
    int8: ModelState, bundle: Exported, tmp_path: Path, sizes: tuple[int, ...], message: str
) -> None:
    model = onnx.load_from_string(read_bundle(bundle[0])["model.onnx"])
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, sizes, strict=True):
        dim.dim_value = size
    with pytest.raises(ExportError, match=message):
        export("onnx-tensorrt", {}, _onnx_state(int8, model.SerializeToString()), tmp_path)


def test_an_onnx_file_for_one_image_takes_no_larger_batch(int8: ModelState, bundle: Exported, tmp_path: Path) -> None:
    model = onnx.load_from_string(read_bundle(bundle[0])["model.onnx"])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    state = _onnx_state(int8, model.SerializeToString())
    with pytest.raises(ExportError, match="one image in a call"):
        export("onnx-tensorrt", {"batch": {"min": 1, "opt": 1, "max": 2}}, state, tmp_path)
    path, result = export("onnx-tensorrt-rtx", {}, state, tmp_path)
    assert result.input.shape == (1, 3, SIZE, SIZE)
    assert EngineSettings.from_json(read_bundle(path)["build.json"].decode()).fixed_shapes
    path, _ = export("onnx-tensorrt", {}, state, tmp_path)
    assert b"Shapes" not in read_bundle(path)["build.sh"]


# ---- what is refused -----------------------------------------------------------------------------------------------

RECIPE = """\
schema = 1
name = "check"

[dataset]
use = "digits"
image_size = 32

[model]
use = "timm"
arch = "mobilenetv3_small_050"

[[passes]]
use = "ptq"
quantizer = "{quantizer}"

[[exports]]
use = "{exporter}"
{options}
"""


@pytest.mark.parametrize("exporter", ["tensorrt", "tensorrt-rtx"])
def test_a_quantizer_with_zero_points_is_refused_at_check(write_recipe: Callable[[str], Path], exporter: str) -> None:
    recipe = RECIPE.format(quantizer="xnnpack", exporter=exporter, options="")
    with pytest.raises(RecipeError, match=r"quantizer 'xnnpack' gives zero points, and TensorRT takes none") as error:
        check(write_recipe(recipe))
    (problem,) = error.value.problems
    assert (problem.hint or "").startswith('use quantizer = "tensorrt", or "xnnpack-symmetric"')
    assert problem.location is not None
    assert problem.location.line == recipe.splitlines().index("[[exports]]") + 1
    check(write_recipe(recipe.replace("xnnpack", "tensorrt")))


def test_float16_is_refused_for_int8_programs(write_recipe: Callable[[str], Path]) -> None:
    recipe = RECIPE.format(quantizer="tensorrt", exporter="tensorrt", options='precision = "float16"')
    with pytest.raises(RecipeError, match="precision 'float16' is made of a float program, and quantizer 'tensorrt'"):
        check(write_recipe(recipe))


def test_float16_alone_has_a_float_file_to_compare_with(write_recipe: Callable[[str], Path]) -> None:
    recipe = RECIPE.format(quantizer="", exporter="tensorrt", options='precision = "float16"')
    head, _, rest = recipe.partition("[[passes]]")
    plan = check(write_recipe(head + rest[rest.index("[[exports]]") :]))
    assert [planned.use.options.precision for planned in plan.exports] == ["program", "float16"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tensorrt", {"batch": {"min": 2, "opt": 1, "max": 4}}, "not in that order"),
        ("tensorrt-rtx", {"compute_capabilities": ["8.6", "8.6"]}, "names one twice"),
        ("tensorrt-rtx", {"compute_capabilities": ["8.7"]}, "compute_capabilities"),
        ("tensorrt", {"opset": 12}, "opset"),
    ],
)
def test_options_that_make_no_sense_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolve(ExporterPlugin, name, options, REGISTRY)


def test_a_program_that_says_int8_and_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NothingChangedError, match="no layer of the file is"):
        export("tensorrt", {}, replace(tiny_program(), precision="int8"), tmp_path)
    assert not list(tmp_path.iterdir())


# ---- running an engine ---------------------------------------------------------------------------------------------


def test_a_module_or_gpu_that_is_not_there_runs_nothing() -> None:
    assert not can_run("no_such_tensorrt")
    assert can_run("tensorrt_rtx") == (gpu_count() > 0)


@without_gpu
def test_an_engine_that_cannot_be_opened_is_explained() -> None:
    with pytest.raises(ValueError, match="another version or for another GPU"):
        EnginePredictor(b"no plan", tensorrt_rtx, device="cpu")
    with pytest.raises(ValueError, match="built without CUDA"):
        EnginePredictor(b"no plan", tensorrt_rtx)


class _Modes(IntEnum):
    INPUT = 0
    OUTPUT = 1


class _StandIn:
    """TensorRT's interface, computing the mean of each channel on the processor, for batches of `smallest` to 4.

    It reads and writes the very addresses that it is given, as TensorRT does on a GPU.
    """

    TensorIOMode = _Modes

    def __init__(self, smallest: int) -> None:
        self.smallest, self.batches, self.addresses, self.has_plugins = smallest, [], {}, False
        self.num_io_tensors = 2

    # the module
    class Logger:
        ERROR = 1

        def __init__(self, level: int) -> None:
            self.level = level

    def init_libnvinfer_plugins(self, _logger: object, _namespace: str) -> None:
        self.has_plugins = True

    def Runtime(self, _logger: object) -> _StandIn:
        return self

    def nptype(self, dtype: str) -> type:
        return np.dtype(dtype).type

    # the runtime and the engine
    def deserialize_cuda_engine(self, plan: bytes) -> _StandIn | None:
        return self if plan == b"plan" and self.has_plugins else None

    def create_execution_context(self) -> _StandIn:
        return self

    def get_tensor_name(self, index: int) -> str:
        return ("logits", "input")[index]

    def get_tensor_mode(self, name: str) -> _Modes:
        return _Modes.INPUT if name == "input" else _Modes.OUTPUT

    def get_tensor_dtype(self, _name: str) -> str:
        return "float32"

    def get_tensor_profile_shape(self, _name: str, _profile: int) -> list[tuple[int, ...]]:
        return [(batch, 3, 8, 8) for batch in (self.smallest, self.smallest, 4)]

    # the context
    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        batch = self.batches[-1] if self.batches else -1
        return (batch, 3, 8, 8) if name == "input" else (batch, 3)

    def set_input_shape(self, _name: str, shape: tuple[int, ...]) -> None:
        assert self.smallest <= shape[0] <= 4
        self.batches.append(shape[0])

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, _stream: int) -> bool:
        count = self.batches[-1]
        given, returned = (
            np.ctypeslib.as_array((ctypes.c_float * size).from_address(self.addresses[name]))
            for name, size in (("input", count * 192), ("logits", count * 3))
        )
        returned.reshape(count, 3)[:] = given.reshape(count, 3, 64).mean(-1)
        return count != 3


@pytest.mark.parametrize(("smallest", "batches"), [(1, [4, 4, 1]), (4, [4, 4, 4])])
def test_batches_are_cut_and_filled_to_what_the_engine_takes(smallest: int, batches: list[int]) -> None:
    stand_in = _StandIn(smallest)
    predictor = EnginePredictor(b"plan", stand_in, device="cpu")
    assert (predictor.input_info.shape, predictor.output_infos[0].shape) == ((4, 3, 8, 8), (4, 3))
    images = np.random.default_rng(0).normal(size=(9, 3, 8, 8)).astype(np.float32)
    logits = predictor.predict(images)[0]
    assert stand_in.batches == batches
    np.testing.assert_allclose(logits, images.mean((2, 3)), atol=1e-6)
    assert logits.dtype == np.float32
    with predictor:
        assert predictor.predict(images[:0])[0].shape == (0, 3)


def test_an_engine_that_fails_is_not_taken_for_an_answer() -> None:
    predictor = EnginePredictor(b"plan", _StandIn(1), device="cpu")
    with pytest.raises(RuntimeError, match="could not run"):
        predictor.predict(np.zeros((3, 3, 8, 8), np.float32))
