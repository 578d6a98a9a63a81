"""The exporter for microcontrollers and the networks for them keep the contracts; its files say what they are."""

# ruff: noqa: RUF012 - a contract is set up by the attributes of its class

from __future__ import annotations

import importlib.util
import json
import math
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgeopt.cards.reading import card_from_text
from edgeopt.errors import ExportError
from edgeopt.export.make import make_artifact
from edgeopt.plugins import ExporterPlugin, Form, ModelState, Numerics, QuantizerPlugin, installed_version
from edgeopt.plugins.registry import Registry
from edgeopt.preprocessing import Preprocessing
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import resolve
from edgeopt.tasks import TASKS
from edgeopt.testing import ExporterContract, ModelContract, tiny_data
from edgeopt.testing.values import tiny_int8_program
from edgeopt.types import Role


class TestTflm(ExporterContract):
    name = "tflm"
    # as the exporter that writes its files to begin with
    test_takes_a_program_of_two_outputs = None
    test_takes_a_program_of_one_image = None


class TestMcu(ModelContract):
    name = "mcu"


class TestMcuOfGreyImages(ModelContract):
    name = "mcu"
    options = {"arch": "person_detect"}

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls, task):
        return tiny_data(channels=1, task=task)


# ---- a file of grey images ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """The file of a small int8 network of one channel, as a run makes it."""
    from edgeopt.plugins.registry import load_registry

    data = tiny_data(image_size=16, channels=1)
    use = resolve(ExporterPlugin, "tflm", {"accelerator": "ethos-u55-64"}, load_registry())
    return make_artifact(
        use,
        tiny_int8_program(data),
        tmp_path_factory.mktemp("tflm"),
        role=Role.OPTIMIZED,
        recipe={"name": "small"},
        calibration=data.calibration,
        progress=Silent(),
        seed=0,
    )


def rounded_once(total: int, multiplier: int, shift: int) -> int:
    """A sum times multiplier / 2^31 · 2^shift, to the nearest, as LiteRT's linear layer does it since it rounds once."""
    return (total * multiplier + (1 << (30 - shift))) >> (31 - shift)


def rounded_twice(total: int, multiplier: int, shift: int) -> int:
    """The same as gemmlowp does it: the upper half of the doubled product to the nearest, and then the shift."""
    product = total * multiplier + (1 << 30 if total * multiplier >= 0 else 1 - (1 << 30))
    high = abs(product) >> 31
    high = high if product >= 0 else -high
    mask = (1 << -shift) - 1
    return (high >> -shift) + ((high & mask) > (mask >> 1) + (high < 0))


def test_values_are_those_of_reference_kernels_bit_by_bit(made) -> None:
    """Of every operator but the linear layer, which LiteRT rounds once and TensorFlow Lite Micro twice."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
    from tflite_micro import runtime

    from edgeopt_tflite.graph import Graph

    content = made.path.read_bytes()
    graph = Graph(content)
    keeping = runtime.InterpreterConfig.kPreserveAllTensors
    micro = runtime.Interpreter.from_bytes(content, arena_size=1 << 20, intrepreter_config=keeping)
    reference = OpResolverType.BUILTIN_REF
    litert = Interpreter(
        model_content=content, experimental_op_resolver_type=reference, experimental_preserve_all_tensors=True
    )
    litert.allocate_tensors()
    (given,) = litert.get_input_details()
    assert given["dtype"] == np.int8
    *inner, linear = graph.operators
    assert graph.kind(linear) == "FULLY_CONNECTED"
    value, weight, bias = map(int, linear.inputs)
    weights, biases = graph.constant(weight).reshape(graph.shape(weight)).astype(int), graph.constant(bias)
    scales, (of_value, zero) = graph.main.tensors[weight].quantization.scale, graph.quantization(value)
    of_output, zero_of_output = graph.quantization(int(linear.outputs[0]))
    factors = [math.frexp(float(of_value) * float(scale) / float(of_output)) for scale in scales]
    random = np.random.default_rng(0)
    differing = 0
    for _ in range(100):
        image = random.integers(-128, 128, given["shape"]).astype(np.int8)
        litert.set_tensor(given["index"], image)
        litert.invoke()
        micro.set_input(image, 0)
        micro.invoke()
        for operator in inner:
            (tensor,) = map(int, operator.outputs)
            theirs = litert.get_tensor(tensor)
            assert np.array_equal(theirs.ravel(), micro.GetTensor(tensor, 0)["tensor_data"].ravel()), graph.kind(
                operator
            )
        sums = weights @ (litert.get_tensor(value).ravel().astype(int) - zero) + biases
        (tensor,) = map(int, linear.outputs)
        once, twice = (
            [
                np.clip(how(int(total), round(share * (1 << 31)), shift) + zero_of_output, -128, 127)
                for total, (share, shift) in zip(sums, factors, strict=True)
            ]
            for how in (rounded_once, rounded_twice)
        )
        assert litert.get_tensor(tensor).ravel().tolist() == once
        assert micro.GetTensor(tensor, 0)["tensor_data"].ravel().tolist() == twice
        differing += once != twice
    assert differing < 10  # the two ways of rounding are rarely told apart, and then by one


def test_card_and_report_say_what_the_file_takes(made) -> None:
    taken = made.exported.footprint
    assert json.loads(made.card.to_json())["footprint"]["ram_bytes"] == taken.ram_bytes
    assert made.exported.facts["arena_bytes"] == taken.ram_bytes == sum(taken.ram_parts.values())
    assert made.exported.facts["flash_bytes"] == taken.flash_bytes == made.path.stat().st_size == made.size_bytes
    # 16 channels of 8 px each way, two of them read and one written by the sum, all at once
    assert taken.most_ram == ("operator 3 (ADD)", 3 * 16 * 8 * 8)
    assert taken.ram_parts["head"] >= taken.most_ram[1]
    assert taken.most_flash == ("body.0 (CONV_2D)", 16 * 16 * 9 + 16 * 4)
    assert set(taken.operators) == {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED"}
    assert made.exported.delegated_share is None


def test_an_estimate_is_on_the_card_and_in_the_report_as_one(made) -> None:
    told = made.exported.footprint.estimate
    assert (told.processor, told.on_cpu) == ("ethos-u55-64", 0)
    assert told.cycles > 0
    assert json.loads(made.card.to_json())["footprint"]["estimate"]["cycles"] == told.cycles
    assert card_from_text(made.card.to_json()).footprint == made.exported.footprint


def test_padding_is_absorbed_and_no_bit_changes(made) -> None:
    """The file's first convolution has a fourth row and column of zeros; with the padding that they stand for, and
    without them, it takes more RAM and gives the same answers.
    """
    from edgeopt_tflite.graph import Graph
    from edgeopt_tflm.footprint import bare
    from edgeopt_tflm.interpreter import MicroFile
    from edgeopt_tflm.rewrites import absorb_padding

    content = made.path.read_bytes()
    assert made.exported.facts["paddings_absorbed"] == 1
    graph = Graph(content)
    first = graph.operators[0]
    value, weight = map(int, first.inputs[:2])
    kernel = graph.constant(weight).reshape(graph.shape(weight))
    assert kernel.shape == (1, 4, 4, 16)
    assert not kernel[:, 3].any()
    assert not kernel[:, :, 3].any()
    batch, height, width, channels = graph.shape(value)
    padded = graph.add_tensor((batch, height + 2, width + 2, channels), "int8", graph.quantization(value))
    widths = graph.add_constant(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
    graph.set_constant(weight, kernel[:, :3, :3].ravel(), "int8")
    graph.main.tensors[weight].shape = np.array([1, 3, 3, 16], np.int32)
    graph.operators = [graph.operator("PAD", [value, widths], [padded], version=2), *graph.operators]
    first.inputs = np.array([padded, *first.inputs[1:]], np.int32)
    first.builtinOptions.padding = 1  # VALID
    plain = bare(graph)
    before, after = MicroFile(plain, Graph(plain)), MicroFile(content, Graph(content))
    random = np.random.default_rng(0)
    for _ in range(20):
        image = random.integers(-128, 128, (batch, height, width, channels)).astype(np.int8)
        assert np.array_equal(before.run(image)[0], after.run(image)[0])
    assert before.arena().total > after.arena().total
    again = Graph(plain)
    assert absorb_padding(again) == 1
    assert bare(again) == content


_STANDING_IN = """\
#pragma once
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
namespace tflite {
template <unsigned int count>
struct MicroMutableOpResolver {
  unsigned int added = 0;
  TfLiteStatus Add() { return ++added <= count ? kTfLiteOk : kTfLiteError; }
  TfLiteStatus AddConv2D() { return Add(); }
  TfLiteStatus AddDepthwiseConv2D() { return Add(); }
  TfLiteStatus AddAdd() { return Add(); }
  TfLiteStatus AddMean() { return Add(); }
  TfLiteStatus AddFullyConnected() { return Add(); }
};
}  // namespace tflite
"""
_PROGRAM = """\
#include <cstdio>
#include "model.h"
int main() {
  tflite::MicroMutableOpResolver<kOperators> resolver;
  if (RegisterOperators(resolver) != kTfLiteOk || resolver.added != 5) return 1;
  for (int pixel = 0; pixel < 256; ++pixel) std::printf("%d ", ToInput(pixel, 0));
  std::printf("\\n%zu %d %d %d %s\\n", kArenaBytes, kHeight, kWidth, kChannels, kLabels[kLabelCount - 1]);
  for (unsigned char byte : kModel) std::printf("%02x", byte);
}
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler is here")
def test_source_code_feeds_the_file_as_the_predictor_does(made, tmp_path: Path) -> None:
    from edgeopt_tflm.predictor import quantized

    for name in made.exported.beside:
        shutil.copy(made.path.with_name(name), tmp_path)
    header = tmp_path / "tensorflow/lite/micro/micro_mutable_op_resolver.h"
    header.parent.mkdir(parents=True)
    header.write_text(_STANDING_IN)
    (tmp_path / "main.cc").write_text(_PROGRAM)
    built = ["g++", "-std=c++17", "-Wall", "-Werror", "-I.", "main.cc", "model.cc", "-o", "main"]
    subprocess.run(built, cwd=tmp_path, check=True, timeout=120)
    done = subprocess.run(["./main"], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60)
    inputs, said, array = done.stdout.split("\n")
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 1, 256, 1)
    preprocessing = Preprocessing.from_json(made.card.preprocessing)
    wanted = quantized(preprocessing.normalize(pixels), made.exported.input)
    assert [int(each) for each in inputs.split()] == wanted.ravel().tolist()
    assert len(set(wanted.ravel().tolist())) > 100
    taken = made.exported.footprint
    assert said == f"{-(-taken.ram_bytes // 16) * 16} 16 16 1 class-2"
    assert bytes.fromhex(array) == made.path.read_bytes()


# ---- in an emulated Cortex-M ---------------------------------------------------------------------------------------


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch):
    """The command behind `make test-mcu`, which itself is not part of the tests: it compiles for minutes."""
    path = Path(__file__).parents[1] / "mcu" / "__main__.py"
    spec = importlib.util.spec_from_file_location("mcu_command", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mcu_command", module)  # dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def test_the_image_is_fed_the_pixels_that_python_answers(board, made, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """What stands for the image answers by a file of its own; one other value, or RAM that was not told, is a failure."""
    (made.path.parent / "card.json").write_text(made.card.to_json())
    parts = made.exported.footprint.ram_parts
    given = []

    def answers(_folder, _source, _cache, pixels, change: int = 0, head: int = parts["head"]):
        given.append(pixels)
        values = board.python_answers(made.path, made.card, pixels)
        values[0, 0] ^= change
        return board.Answered(values, head, parts["tail"] - 1, 200_000)

    for change, head, wanted in ((0, parts["head"], True), (1, parts["head"], False), (0, parts["head"] + 16, False)):
        monkeypatch.setattr(board, "image_answers", partial(answers, change=change, head=head))
        assert board.check(made.path.parent, Path(), Path()) is wanted
        assert f"{change} of 150 values of 50 images differ" in capsys.readouterr().out
    assert given[0].shape == (50, 16, 16, 1)
    assert given[0].dtype == np.uint8
    assert given[0].std() > 50


def test_what_is_missing_for_an_image_is_said_at_once(board, tmp_path: Path, made) -> None:
    board.NEEDED["no-such-compiler"] = "a-package"
    with pytest.raises(board.UnpreparedError) as caught:
        board.require(tmp_path)
    assert "a-package" in str(caught.value)
    assert "TFLM_SOURCE must be a clone" in str(caught.value)
    assert re.search(r"of commit [0-9a-f]{7}", str(caught.value)), "that of the interpreter's package"
    (tmp_path / "card.json").write_text(made.card.to_json())
    with pytest.raises(board.UnpreparedError, match=r"no int8 file of the exporter tflm with its model\.h"):
        board.check(tmp_path, tmp_path, tmp_path)


# ---- what is refused ----------------------------------------------------------------------------------------------


def test_a_recipe_without_int8_is_refused(registry: Registry) -> None:
    use = resolve(ExporterPlugin, "tflm", {}, registry)
    (problem,) = use.plugin.check(use.options, Numerics())
    assert "no pass of this recipe quantizes" in problem.message
    assert not list(use.plugin.check(use.options, Numerics((registry.get(QuantizerPlugin, "xnnpack"),))))
    (problem,) = use.plugin.check(use.options, Numerics((registry.get(QuantizerPlugin, "tensorrt"),)))
    assert "leaves outputs in float" in problem.message


def test_an_estimate_without_its_compiler_is_refused(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    use = resolve(ExporterPlugin, "tflm", {"accelerator": "ethos-u55-64"}, registry)
    numerics = Numerics((registry.get(QuantizerPlugin, "xnnpack"),))
    assert not list(use.plugin.check(use.options, numerics))
    assert use.plugin.fingerprint(use.options) == installed_version("ethos-u-vela")
    monkeypatch.setattr("edgeopt_tflm.options.installed_version", lambda _name: None)
    (problem,) = use.plugin.check(use.options, numerics)
    assert problem.message == "accelerator = 'ethos-u55-64' asks ethos-u-vela, which is not installed"
    assert "edgeopt[ethos-u]" in problem.hint


def test_an_operator_that_is_not_there_is_named_before_anything_is_trained(registry: Registry, tmp_path: Path) -> None:
    import torch

    from edgeopt.networks.capture import to_program

    data = tiny_data(image_size=16)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.GELU(), torch.nn.AdaptiveAvgPool2d(1))
    net.append(torch.nn.Flatten()).append(torch.nn.Linear(4, 3))
    state = to_program(
        ModelState(net, Form.MODULE, TASKS["classification"], data.classes, data.preprocessing), data.validation
    )
    use = resolve(ExporterPlugin, "tflm", {}, registry)
    (problem,) = use.plugin.refuses(state, use.options)
    assert problem.message == "TensorFlow Lite Micro has no operator GELU"
    with pytest.raises(ExportError, match="no operator GELU"):
        make_artifact(
            use,
            state,
            tmp_path,
            role=Role.BASELINE,
            recipe={},
            calibration=data.calibration,
            progress=Silent(),
            seed=0,
            has_self_test=False,
        )
