"""What a `.param` and its `.bin` hold and answer, and how what ncnn does not take is refused."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from small_programs import CLASSES, SIZE, capture, float_net, odd_net, quantized
from torch import nn

from edgeopt.cards.reading import card_of
from edgeopt.errors import ExportError, RecipeError
from edgeopt.networks.capture import program_outputs
from edgeopt.options import ExporterOptions
from edgeopt.plugins import OperatorTimesRequest
from edgeopt.plugins.declarations import ExporterPlugin, Numerics, QuantizerPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.preprocessing import Preprocessing
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import resolve
from edgeopt.tasks import TASKS
from edgeopt.testing import tiny_int8_program
from edgeopt.testing.exporter import export_file
from edgeopt.testing.values import ArraySplit
from edgeopt.types import Form, ModelState
from edgeopt_ncnn import exporter
from edgeopt_ncnn.graph import Graph
from edgeopt_ncnn.on_device import read_param
from edgeopt_ncnn.quantizer import NcnnQuantizer
from edgeopt_ncnn.rewrites.fully_connected import as_convolutions
from edgeopt_torchao.quantize.convert import OPERATORS, convert
from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq


def use_of(**options):
    return resolve(ExporterPlugin, "ncnn", options, load_registry())


def state_of(program, precision="float32"):
    names = tuple(map(str, range(CLASSES)))
    preprocessing = Preprocessing(SIZE, SIZE, SIZE)
    imports = OPERATORS if precision == "int8" else ()
    return ModelState(
        program, Form.PROGRAM, TASKS["classification"], names, preprocessing, precision=precision, imports=imports
    )


def rounded(net: nn.Module, **settings) -> ModelState:
    """A network as `ptq` rounds it for ncnn."""
    prepared = prepare_ptq(
        capture(net), NcnnQuantizer(qat=False, observer="minmax", **{"all_layers": False, **settings})
    )
    torch.manual_seed(1)
    calibrate(prepared, [torch.randn(8, 3, SIZE, SIZE) * 2 + 0.5 for _ in range(2)])
    return state_of(capture(convert(prepared)), "int8")


def layers_of(file: Path) -> dict[str, str]:
    """The type of each layer, by its name, with "int8" behind those that have scales."""
    graph = Graph(read_param(file).layers.decode())
    return {each.name: each.type + (" int8" if each.number(8) else "") for each in graph.layers}


def outputs(file: Path, images: np.ndarray) -> np.ndarray:
    with use_of().plugin.opened(file, 1) as predictor:
        return predictor.predict(images)[0]


def images_of(count: int) -> np.ndarray:
    return (np.random.default_rng(3).standard_normal((count, 3, SIZE, SIZE)) * 2 + 0.5).astype(np.float32)


def answers_of(state: ModelState, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return state.program.module(check_guards=False)(torch.from_numpy(images)).numpy()


@pytest.fixture(scope="module")
def small() -> ModelState:
    """A network with depthwise and full convolutions, a hard-swish and a gate, rounded for ncnn."""
    return rounded(float_net())


@pytest.fixture(scope="module")
def file(small, tmp_path_factory) -> Path:
    return export_file(use_of(), small, tmp_path_factory.mktemp("int8"))[0]


def test_a_file_in_int8_answers_as_its_program_and_names_its_layers(small, file):
    """The integers are the program's, so that what differs are last bits before a rounding: a step of the last layer."""
    images = images_of(24)
    expected = answers_of(small, images)
    got = outputs(file, images)
    assert np.abs(got - expected).max() <= 0.02 * np.ptp(expected)
    assert (got.argmax(1) == expected.argmax(1)).mean() >= 0.95
    layers = layers_of(file)
    assert (layers["stem.0"], layers["block.0"]) == ("Convolution", "ConvolutionDepthWise"), "faster in float"
    assert layers["squeeze.1"] == "InnerProduct", "of few products, and no slower in float"
    assert layers["head"] == "InnerProduct int8"
    assert "HardSwish" not in layers.values()


def test_integers_of_the_file_are_those_of_the_program(small, file):
    from edgeopt_ncnn.rewrites.traced import trace

    content = file.with_suffix(".bin").read_bytes()
    head = next(each for each in trace(small).layers if each.name == "head")
    start = content.index(head.rounding.integers.tobytes())
    bias = 4 * CLASSES
    scales = np.frombuffer(content[start + head.weight.size + bias :], "<f4", CLASSES + 1)
    assert scales[:-1] == pytest.approx(1 / head.rounding.weight_scales)
    assert scales[-1] == pytest.approx(1 / head.rounding.input_scale)


def test_convolutions_behind_one_another_hand_on_integers(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, 1, 1, groups=8),
        nn.Hardswish(),
        nn.Conv2d(8, 8, 3, 1, 1, groups=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    ).eval()
    state = rounded(net, all_layers=True)
    file, result = export_file(use_of(), state, tmp_path)
    graph = Graph(read_param(file).layers.decode())
    assert {each.name: each.number(8) for each in graph.layers if each.number(8)} == {"0": 102, "2": 1, "8": 2}
    assert result.facts["layers_quantized"] == 3, "a convolution in groups has no int8 layer with scales of channels"
    images = images_of(16)
    expected = answers_of(state, images)
    assert np.abs(outputs(file, images) - expected).max() <= 0.03 * np.ptp(expected)


def test_layers_are_found_behind_weights_of_others(tmp_path):
    """Of two layers of the same size, one behind a LayerNorm, whose place in the file is not known."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 1), nn.PReLU(4), nn.Conv2d(4, 4, 1), nn.Flatten(1))
    net = nn.Sequential(*net, nn.Linear(4 * (SIZE // 2) ** 2, 16), nn.LayerNorm(16), nn.Linear(16, CLASSES)).eval()
    state = rounded(net, all_layers=True)
    file, result = export_file(use_of(), state, tmp_path)
    assert result.facts["layers_quantized"] == 5
    assert not result.outside
    images = images_of(8)
    expected = answers_of(state, images)
    assert np.abs(outputs(file, images) - expected).max() <= 0.05 * np.ptp(expected)


def test_large_vectors_are_multiplied_as_images_of_a_point(tmp_path, monkeypatch):
    """Bit for bit as without; between two that follow each other, none becomes a vector again."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 24))
    net = nn.Sequential(*net, nn.Hardswish(), nn.Linear(24, 16), nn.LayerNorm(16), nn.Linear(16, CLASSES)).eval()
    state, images = rounded(net), images_of(8)
    plain, fast = tmp_path / "plain", tmp_path / "fast"
    plain.mkdir()
    fast.mkdir()
    before, _ = export_file(use_of(), state, plain)
    monkeypatch.setattr(exporter, "as_convolutions", partial(as_convolutions, fewest=100))
    after, _ = export_file(use_of(), state, fast)
    layers = layers_of(after)
    assert {layers_of(before)[name] for name in ("3", "5", "7")} == {"InnerProduct int8"}
    assert (layers["3"], layers["5"]) == ("Convolution int8", "Convolution int8")
    assert [*layers.values()].count("Reshape") - [*layers_of(before).values()].count("Reshape") <= 2
    assert ("3.image" in layers, "3.answer" in layers, "5.image" in layers, "5.answer" in layers) == (
        True,
        False,
        False,
        True,
    )
    assert np.array_equal(outputs(before, images), outputs(after, images))
    assert before.with_suffix(".bin").read_bytes() == after.with_suffix(".bin").read_bytes()


def test_layers_of_few_products_stay_in_float(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU())
    net = nn.Sequential(*net, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)).eval()
    file, _ = export_file(use_of(), rounded(net), tmp_path)
    layers = layers_of(file)
    assert (layers["0"], layers["1"], layers["2"]) == ("Convolution", "Convolution", "Convolution int8")


def test_layers_are_timed_and_known_by_their_modules(small, file, tmp_path):
    floats, _ = export_file(use_of(), state_of(capture(float_net())), tmp_path)
    times = {}
    for path in (file, floats):
        request = OperatorTimesRequest(path, images_of(1), threads=1, warmup=1, runs=3, folder=tmp_path)
        times[path] = use_of().plugin.operator_times(request)
        assert {each.layer for each in times[path]} - {""} == {"stem.0", "block.0", "squeeze.1", "head"}
        assert all(each.ms >= 0 for each in times[path])
        assert [each.kind for each in times[path]].count("InnerProduct") == 2
        assert len(times[path]) == len(layers_of(path)) - 1, "all but the input"
    assert sum(each.ms for each in times[floats]) > 0


def test_a_program_for_all_runtimes_is_taken(tmp_path):
    """Roundings that ncnn has no place for are left out, and counted."""
    state = tiny_int8_program(quantizer="xnnpack-symmetric")
    file, result = export_file(use_of(), state, tmp_path)
    assert result.facts["roundings_left_out"] > 0
    shape = state.preprocessing.shape
    noise = np.random.default_rng(2).integers(0, 256, (12, *shape), dtype=np.uint8)
    expected = program_outputs(state, ArraySplit(noise, np.zeros(12, dtype=np.int64)), Silent(), "program")[0]
    got = outputs(file, state.preprocessing.normalize(noise))
    assert (got.argmax(1) == expected.argmax(1)).mean() >= 0.9


def test_a_layer_that_ncnn_has_in_float_alone_is_named(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = nn.Sequential(*net, nn.Linear(8, CLASSES)).eval()
    _, result = export_file(use_of(), state_of(quantized(capture(net), zero_points=False), "int8"), tmp_path)
    assert result.outside == ("1 (quantized, and float in the file)",)
    assert (result.facts["layers"], result.facts["layers_quantized"]) == (3, 2)


def test_float16_takes_half_and_answers_alike(tmp_path):
    state = state_of(capture(float_net()))
    made = {}
    for precision in ("program", "float16"):
        (tmp_path / precision).mkdir()
        made[precision], result = export_file(use_of(precision=precision), state, tmp_path / precision)
    sizes = {name: path.with_suffix(".bin").stat().st_size for name, path in made.items()}
    weights = sum(each.numel() for each in state.program.state_dict.values() if each.dim() > 1)
    assert sizes["program"] - sizes["float16"] == pytest.approx(2 * weights, abs=16)
    assert result.precision == card_of(made["float16"]).precision == "float16"
    images = images_of(4)
    expected = answers_of(state, images)
    assert 0 < np.abs(outputs(made["float16"], images) - expected).max() <= 0.01 * np.ptp(expected)


def test_the_card_is_inside(file):
    card = card_of(file)
    assert (card.runtime, card.precision, card.classes) == ("ncnn", "int8", tuple(map(str, range(CLASSES))))
    assert card.input.shape == (1, 3, SIZE, SIZE)


@pytest.mark.parametrize("damage", ["missing", "other", "weights", "layers", "cut"])
def test_a_companion_that_is_not_its_own_is_refused_by_name(file, tmp_path, damage):
    param, weights = (Path(shutil.copy(each, tmp_path)) for each in (file, file.with_suffix(".bin")))
    content = weights.read_bytes()
    if damage == "missing":
        weights.unlink()
    elif damage == "other":
        weights.write_bytes(content + content)
    elif damage == "weights":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "layers":
        param.write_bytes(param.read_bytes().replace(b"7767517", b"7767518"))
    else:
        param.write_bytes(param.read_bytes().partition(b"#edgeopt")[0])
    said = {
        "missing": "weights in model.ncnn.bin, which is not beside it",
        "layers": "model.ncnn.param is damaged",
        "cut": "model.ncnn.param was cut off",
    }
    with pytest.raises(ExportError, match=said.get(damage, "model.ncnn.bin is damaged, or belongs to another file")):
        use_of().plugin.open(param, 1)


def test_an_operator_that_ncnn_has_not_is_named_with_its_module(tmp_path):
    with pytest.raises(ExportError, match=r"ncnn cannot run aten\.fft_rfft\.default \(in block\.odd\)"):
        export_file(use_of(), state_of(capture(odd_net("fft"))), tmp_path)


def test_what_ncnn_computes_otherwise_is_no_file(tmp_path):
    """pnnx takes a determinant of each channel for something else, or not at all; neither is silent."""
    with pytest.raises(ExportError):
        export_file(use_of(), state_of(capture(odd_net("determinant"))), tmp_path)


def problems(quantizers: tuple[str, ...], **options: object) -> list[str]:
    use = use_of(**options)
    registry = load_registry()
    found = use.plugin.check(use.options, Numerics(tuple(registry.get(QuantizerPlugin, each) for each in quantizers)))
    return [each.message for each in found]


def test_check_refuses_what_ncnn_has_no_numbers_for():
    assert "gives zero points" in problems(("xnnpack",))[0]
    assert not problems(("xnnpack-symmetric",))
    assert not problems(("ncnn",))
    assert "is made of a float program" in problems(("ncnn",), precision="float16")[0]


def test_zero_points_are_refused_where_nobody_checked(tmp_path):
    with pytest.raises(ExportError, match="zero point"):
        export_file(use_of(), tiny_int8_program(quantizer="xnnpack"), tmp_path)


def test_unknown_precision_is_refused():
    assert issubclass(type(use_of().options), ExporterOptions)
    with pytest.raises(RecipeError):
        use_of(precision="float8")


def test_a_layer_that_takes_fewer_bits_is_refused(tmp_path):
    """Where a recipe names single layers, `check` does not know of it; ncnn would round to eight bits in silence."""
    state = state_of(quantized(capture(float_net()), activation_bits=6, zero_points=False), "int8")
    with pytest.raises(ExportError, match="ncnn rounds activations to eight bits, and those of this program take 6"):
        export_file(use_of(), state, tmp_path)
