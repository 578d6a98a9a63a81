"""Activations of sixteen bits with weights of eight, "16x8": what the program rounds, and what the files hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_programs import CLASSES, SIZE, capture, images, outputs
from tflite_files import export
from torch import nn
from torch.export import ExportedProgram
from torch.nn import functional
from training_samples import make_context, make_data
from typer.testing import CliRunner, Result

import edgeopt
from edgeopt.cli import app
from edgeopt.errors import ExportError, RecipeError
from edgeopt.export.make import Artifact, make_artifact
from edgeopt.networks.bits import has_wide_activations, layer_bits, rounding_of
from edgeopt.networks.integer_layers import compute_with_integers
from edgeopt.networks.layers import operator_name
from edgeopt.plugins.declarations import Bits, ExporterPlugin, Numerics, PassPlugin, QuantizerPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.plugins.use import Use
from edgeopt.preprocessing import Preprocessing
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import checked, numerics_of, resolve
from edgeopt.tasks import TASKS
from edgeopt.testing import tiny_data
from edgeopt.types import TORCH, Form, ModelState, Role
from edgeopt_tflite.graph import Graph
from edgeopt_tflite.int16 import widen_biases
from edgeopt_tflite.predictor import TflitePredictor
from edgeopt_tflm.predictor import TflmPredictor
from edgeopt_torchao.bits.rules import BitRules, target_of
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq

TAKERS = {"tflite", "tflm"}


class Regression(nn.Module):
    """A residual network that gives a number far from zero with much behind the point, as a distance is.

    Its weights are integers from -127 to 127 of one step, so that eight bits hold them exactly, and all that is lost is
    lost in the activations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, CLASSES)
        random = torch.Generator().manual_seed(0)
        for layer in (self.stem, self.depthwise, self.pointwise, self.head):
            integers = torch.randint(-127, 128, layer.weight.shape, generator=random)
            integers.flatten(1)[:, 0] = 127  # a channel's largest weight gives its step
            layer.weight.data = integers * 2.0**-9
            layer.bias.data = torch.randn(layer.bias.shape, generator=random)
        self.head.bias.data += 20.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(x))
        x = x + functional.relu(self.pointwise(self.depthwise(x)))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class ManyOperators(nn.Module):
    """Operators that have kernels for int16, and some that have none: hard swish, sigmoid, joins, a sum with a constant,
    a padded pooling.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.middle = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.leaky_relu(self.stem(x), 0.1)
        x = functional.relu6(self.middle(x)) + functional.max_pool2d(x, 3, 1, 1)
        x = functional.hardswish(self.middle(x)) * torch.sigmoid(functional.adaptive_avg_pool2d(x, 1))
        x = functional.avg_pool2d(functional.max_pool2d(functional.max_pool2d(x, 3, 2, 1), 2), 1)
        x = functional.interpolate(functional.pad(x, (1, 1, 1, 1))[:, :, 1:], scale_factor=2.0, mode="nearest")
        x = torch.maximum(self.middle(x), functional.relu(x)) - self.middle(x).abs().clamp(-0.5, 0.5)
        x = torch.cat([x, x.permute(0, 1, 3, 2).reshape(x.shape)], 1)[:, 4:12] + 1.5
        return self.head(x.mean((2, 3)))


def quantized(net: nn.Module, activation_bits: int) -> ExportedProgram:
    """A program with weights of eight bits, as `ptq` makes it."""
    use = resolve(QuantizerPlugin, "xnnpack", {}, load_registry())
    target = target_of(use, BitRules(Bits(8, activation_bits)), qat=False)
    prepared = prepare_ptq(capture(net.eval()), target.quantizer)
    calibrate(prepared, [images(64)])
    return capture(convert(prepared))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return Regression().eval()


@pytest.fixture(scope="module")
def wide(net: nn.Module) -> ExportedProgram:
    return quantized(net, 16)


def state_of(program: ExportedProgram) -> ModelState:
    preprocessing = Preprocessing(SIZE, resize=SIZE, crop=SIZE)
    return ModelState(
        program, Form.PROGRAM, TASKS["classification"], tuple(map(str, range(CLASSES))), preprocessing, "16x8"
    )


@pytest.fixture(scope="module")
def made(wide: ExportedProgram, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export(state_of(wide), tmp_path_factory.mktemp("int16"), quantized_io="int16")


# ---- the program ---------------------------------------------------------------------------------------------------


def test_every_activation_is_int16_around_zero_and_every_weight_int8(wide: ExportedProgram) -> None:
    assert {(layer.weights, layer.activations) for layer in layer_bits(wide)} == {(8, 16)}
    quantizing = [node for node in wide.graph.nodes if operator_name(node).startswith("quantized_decomposed.quantize")]
    roundings = [each for each in map(rounding_of, quantizing) if each is not None]
    assert {(each.low, each.high, each.zero_point) for each in roundings} == {(-32768, 32767, 0)}
    assert len(roundings) >= 6


def test_sixteen_bits_lose_a_fraction_of_what_eight_lose(net: nn.Module, wide: ExportedProgram) -> None:
    """A 64th: there are 256 times the integers, of which a ReLU's results leave half around zero, and half is room."""
    batch = images(64)
    expected = outputs(capture(net), batch)
    lost = {
        bits: float((outputs(program, batch) - expected).abs().max())
        for bits, program in ((8, quantized(net, 8)), (16, wide))
    }
    assert 0 < lost[16] < lost[8] / 32


def test_an_image_beyond_the_calibration_is_not_cut_off(net: nn.Module, wide: ExportedProgram) -> None:
    bright = images(8) * 1.8
    expected = outputs(capture(net), bright)
    lost, plain = (float((outputs(program, bright) - expected).abs().max()) for program in (wide, quantized(net, 8)))
    assert lost < plain / 32


@pytest.mark.parametrize(
    "options",
    [
        {"weight_bits": 4},
        {"average_bits": 5.0},
        {"allocation": "allocation.toml"},
        {"edge_bits": 6},
        {"layer_bits": {"head": 8}},
    ],
)
def test_other_bits_beside_it_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="activation_bits = 16"):
        resolve(PassPlugin, "ptq", {"activation_bits": 16, **options}, load_registry())


def test_what_a_layer_in_float_costs_is_asked_of_a_runtime_that_takes_the_rest() -> None:
    asked = {"activation_bits": 16, "max_accuracy_drop": 0.01}
    with pytest.raises(RecipeError, match="cost_runtime takes no int16"):
        resolve(PassPlugin, "ptq", asked, load_registry())
    assert resolve(PassPlugin, "ptq", {**asked, "cost_runtime": "tflite"}, load_registry())


def test_bits_between_8_and_16_are_refused() -> None:
    with pytest.raises(RecipeError, match="activation_bits"):
        resolve(PassPlugin, "ptq", {"activation_bits": 12}, load_registry())


# ---- LiteRT --------------------------------------------------------------------------------------------------------


def test_a_file_has_int16_activations_int8_weights_and_biases_of_64_bits(made: Artifact) -> None:
    graph = Graph(made.path.read_bytes())
    layers = [
        each for each in graph.operators if graph.kind(each) in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    ]
    assert [tuple(graph.dtype(int(each)) for each in layer.inputs) for layer in layers] == [
        ("int16", "int8", "int64")
    ] * 4
    computed = [int(tensor) for each in graph.operators for tensor in each.outputs]
    assert {graph.dtype(each) for each in computed} == {"int16"}, "nothing is float between"
    assert {graph.quantization(each)[1] for each in [*computed, int(graph.main.inputs[0])]} == {0}  # type: ignore[index]
    assert made.card.precision == "16x8"
    assert made.exported.input.dtype == made.exported.outputs[0].dtype == "int16"
    assert made.exported.facts["layers_quantized"] == made.exported.facts["layers"] == 4
    assert made.exported.facts["operators_kept_float"] == 0
    assert "XNNPACK takes no int16" in made.exported.warnings[0]


def test_a_file_answers_as_the_program_to_a_few_of_65536_steps(wide: ExportedProgram, made: Artifact) -> None:
    module = wide.module(check_guards=False)
    assert compute_with_integers(module) == 4  # type: ignore[arg-type]  # a graph module
    with torch.no_grad():
        expected = module(images(32)).numpy()
    with TflitePredictor(made.path, threads=1) as predictor:
        got = predictor.predict(images(32).numpy())[0]
    step = made.exported.outputs[0].scale
    assert step is not None
    assert np.ptp(expected) > 250 * step, "a difference of six would not be small"
    assert np.abs(got - expected).max() < 6 * step


def test_the_card_is_printed_with_lines_that_feed_the_file_and_an_app_refuses_it(
    made: Artifact, tmp_path: Path
) -> None:
    def asked(*command: str) -> Result:
        return CliRunner().invoke(app, [*command, str(made.path)])

    said = json.loads(asked("card").stdout)
    assert (said["input"]["dtype"], said["output"]["dtype"], said["precision"]) == ("int16", "int16", "16x8")
    lines: dict[str, Any] = {"__name__": "lines"}
    exec(asked("card", "--lang", "python").stdout, lines)
    pixels = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    given = lines["model_input"](pixels)
    (returned,) = lines["open_file"](str(made.path))(given)
    assert (given.dtype, returned.dtype, np.abs(given).max() > 255) == (np.int16, np.int16, True)
    with TflitePredictor(made.path, threads=1) as predictor:
        (expected,) = predictor.predict(Preprocessing(SIZE, resize=SIZE, crop=SIZE).normalize(pixels))
    assert returned * np.float32(said["output"]["scale"]) == pytest.approx(expected)
    assert lines["likeliest"]([returned])[0][0] == str(expected.argmax())
    refused = asked("app", "android", "--out", str(tmp_path / "app"))
    assert refused.exit_code == 2
    told = " ".join(refused.output.split())
    assert "is int16, and apps know float32, int8, uint8" in told
    assert "export it with float32 going in and coming out" in told


def test_biases_that_are_left_as_the_converter_writes_them_answer_nonsense(
    wide: ExportedProgram, made: Artifact
) -> None:
    """What the exporter is there for: such a file opens, and nobody is told."""
    graph = Graph(made.path.read_bytes())
    biases = {int(each.inputs[2]) for each in graph.operators if graph.kind(each).endswith(("CONV_2D", "CONNECTED"))}
    for bias in biases:
        graph.set_constant(bias, graph.constant(bias).astype(np.int32), "int32")  # type: ignore[union-attr]
    assert widen_biases(graph) == len(biases) == 4
    graph.set_constant(min(biases), np.full(8, np.iinfo(np.int32).max, np.int32), "int32")
    with pytest.raises(ExportError, match="needs more than 32 bits"):
        widen_biases(graph)


def test_operators_without_int16_stay_float_and_all_answer_as_the_program(tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = quantized(ManyOperators(), 16)
    artifact = export(state_of(program), tmp_path)
    graph = Graph(artifact.path.read_bytes())
    floats = {graph.kind(each) for each in graph.operators if graph.dtype(int(each.outputs[0])) == "float32"}
    assert {"HARD_SWISH", "LOGISTIC", "CONCATENATION", "PADV2", "MAXIMUM"} <= floats
    integers = {graph.kind(each) for each in graph.operators if graph.dtype(int(each.outputs[0])) == "int16"}
    assert {"CONV_2D", "FULLY_CONNECTED", "ADD", "MUL", "MEAN", "MAX_POOL_2D", "AVERAGE_POOL_2D", "SLICE"} <= integers
    assert artifact.exported.facts["operators_kept_float"] >= 4
    expected = outputs(program, images(16)).numpy()
    with TflitePredictor(artifact.path, threads=1) as predictor:
        got = predictor.predict(images(16).numpy())[0]
    assert np.abs(got - expected).max() < 2e-3 * np.ptp(expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_an_input_of_eight_bits_is_refused(wide: ExportedProgram, dtype: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="does not fit a program that computes in 16x8"):
        export(state_of(wide), tmp_path, quantized_io=dtype)
    use = resolve(ExporterPlugin, "tflite", {"quantized_io": dtype}, load_registry())
    (problem,) = checked(use, numerics_of([ptq_16()], TORCH))
    assert "does not fit" in problem.message


def ptq_16():
    return resolve(PassPlugin, "ptq", {"activation_bits": 16}, load_registry())


# ---- TensorFlow Lite Micro -----------------------------------------------------------------------------------------


def test_microcontrollers_take_it_and_answer_as_the_program(wide: ExportedProgram, tmp_path: Path) -> None:
    artifact = make_artifact(
        resolve(ExporterPlugin, "tflm", {}, load_registry()),
        state_of(wide),
        tmp_path,
        role=Role.OPTIMIZED,
        recipe={"name": "small"},
        calibration=tiny_data(CLASSES, SIZE).calibration,
        progress=Silent(),
        seed=0,
    )
    with TflmPredictor(artifact.path) as predictor:
        got = predictor.predict(images(8).numpy())[0]
    assert artifact.exported.input.dtype == "int16"
    assert not artifact.exported.warnings
    assert "inline std::int16_t ToInput" in artifact.path.with_suffix(".h").read_text()
    step = artifact.exported.outputs[0].scale
    assert step is not None
    assert np.abs(got - outputs(wide, images(8)).numpy()).max() < 6 * step


# ---- who refuses it ------------------------------------------------------------------------------------------------


def test_every_other_runtime_refuses_it_with_its_reason() -> None:
    registry = load_registry()
    found = [registry.get(ExporterPlugin, name) for name in registry.names(ExporterPlugin)]
    exporters = [each for each in found if each.framework == TORCH]
    wide, plain = (Numerics((), TORCH, Bits(8, bits)) for bits in (16, 8))
    refusing = set()
    for exporter in exporters:
        if not exporter.no_int16:
            continue
        use = Use(exporter, exporter.options())
        said = [problem.message for problem in checked(use, wide)]
        assert f"activations of 16 bits: exporter {exporter.name!r} {exporter.no_int16}" in said
        assert not any("16 bits" in problem.message for problem in checked(use, plain))
        refusing.add(exporter.name)
    assert {each.name for each in exporters} - refusing == TAKERS
    assert {"onnx", "openvino", "executorch", "ncnn", "tensorrt", "onnx-web", "litert-web"} <= refusing


def test_check_names_the_line_of_the_export(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    text = """schema = 1
name = "wide"
[dataset]
use = "digits"
[model]
use = "torchvision"
arch = "mobilenet_v2"
[[passes]]
use = "ptq"
activation_bits = 16
[[exports]]
use = "tflite"
[[exports]]
use = "onnx"
"""
    recipe.write_text(text)
    with pytest.raises(RecipeError) as raised:
        edgeopt.check(recipe)
    (problem,) = raised.value.problems
    assert problem.location is not None and problem.location.line == 13
    assert "exporter 'onnx' would round to int16 and compute in float" in problem.message


def test_a_program_that_comes_with_int16_is_refused_at_the_export(wide: ExportedProgram, tmp_path: Path) -> None:
    assert has_wide_activations(wide)
    use = resolve(ExporterPlugin, "onnx", {}, load_registry())
    with pytest.raises(ExportError, match="activations of 16 bits"):
        make_artifact(
            use,
            state_of(wide),
            tmp_path,
            role=Role.OPTIMIZED,
            recipe={"name": "small"},
            calibration=tiny_data(CLASSES, SIZE).calibration,
            progress=Silent(),
            seed=0,
        )


# ---- the passes ----------------------------------------------------------------------------------------------------


class TrainedNet(nn.Module):
    """A residual network of some thousand weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head((x + self.body(x)).mean((2, 3)))


def test_training_rounds_to_the_integers_that_ship(tmp_path: Path) -> None:
    """`qat` itself compares the converted program with what was trained, and fails where the two round otherwise."""
    data = make_data()
    torch.manual_seed(0)
    state = ModelState(TrainedNet(), Form.MODULE, TASKS["classification"], data.classes, data.preprocessing)
    use = resolve(PassPlugin, "qat", {"activation_bits": 16, "epochs": 2, "batch_size": 32}, load_registry())
    trained = use.plugin.apply(state, use.options, make_context(tmp_path, data))
    record = trained.history[-1]
    assert trained.precision == "16x8"
    assert record.facts["bits"] == "16x8: 3 layers"
    assert record.facts["layers_quantized"] == 3
    assert record.facts["conversion_same_top1"] == 1.0
    quantizing = [each for each in trained.program.graph.nodes if torch.int16 in each.args]
    roundings = {(each.low, each.high) for each in map(rounding_of, quantizing) if each is not None}
    assert roundings == {(-32768, 32767)}


def test_a_layer_may_stay_in_float(tmp_path: Path) -> None:
    data = make_data()
    torch.manual_seed(0)
    state = ModelState(TrainedNet(), Form.MODULE, TASKS["classification"], data.classes, data.preprocessing)
    use = resolve(PassPlugin, "ptq", {"activation_bits": 16, "layer_bits": {"head": "float"}}, load_registry())
    quantized_state = use.plugin.apply(state, use.options, make_context(tmp_path, data))
    assert quantized_state.history[-1].facts["bits"] == "16x8: 2 layers, float: 1 layers"
    assert quantized_state.history[-1].facts["layers_in_float"] == ["head"]
    assert quantized_state.precision == "16x8"
