"""OpenVINO's files: the weights beside the graph, the card within, the layers in integers, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from small_programs import CLASSES, SIZE, capture, float_net, images, odd_net, outputs, quantized

from edgeopt.cards.reading import card_of
from edgeopt.errors import ExportError, UserError
from edgeopt.plugins import (
    Bits,
    ExporterPlugin,
    ExportResult,
    Form,
    ModelState,
    Numerics,
    OperatorTimesRequest,
    Preprocessing,
    TapRequest,
)
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.report.finished_files import find_files
from edgeopt.tasks import TASKS
from edgeopt.testing.exporter import export_file
from edgeopt_openvino import exporter
from edgeopt_openvino.files import CARD_KEY
from edgeopt_openvino.predictor import OpenVinoPredictor
from edgeopt_openvino.rewrites import fold_zero_points, spell_out_hard_sigmoids

REGISTRY = load_registry()
PLUGIN = REGISTRY.get(ExporterPlugin, "openvino")
NAMES = ("käse & brot", "<b>", "rock 'n' roll", '"quoted"', "-->")
LAYERS = {"stem.0", "block.0", "squeeze.1", "head"}


def state_of(program: torch.export.ExportedProgram, precision: str) -> ModelState:
    preprocessing = Preprocessing(SIZE, SIZE, SIZE)
    task = TASKS["classification"]
    return ModelState(program, Form.PROGRAM, task, NAMES, preprocessing, precision=precision, batch_range=(1, 64))


def exported(state: ModelState, folder: Path, **options: Any) -> tuple[Path, ExportResult]:
    folder.mkdir(exist_ok=True)
    return export_file(resolve(ExporterPlugin, "openvino", options, REGISTRY), state, folder)


@pytest.fixture(scope="module")
def states() -> dict[str, ModelState]:
    program = capture(float_net())
    return {"float32": state_of(program, "float32"), "int8": state_of(quantized(program), "int8")}


@pytest.fixture(scope="module")
def files(states: dict[str, ModelState], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    folder = tmp_path_factory.mktemp("openvino")
    return {name: exported(state, folder / name) for name, state in states.items()}


def test_an_int8_file_answers_as_its_program(states: dict[str, ModelState], files: dict[str, tuple[Path, Any]]) -> None:
    batch = images(200)
    expected = outputs(states["int8"].program, batch).numpy()
    with PLUGIN.opened(files["int8"][0], 1) as predictor:
        (logits,) = predictor.predict(batch.numpy())
    assert logits.shape == (200, CLASSES)
    assert (logits.argmax(1) == expected.argmax(1)).mean() >= 0.99
    assert np.abs(logits - expected).max() <= 0.05 * np.ptp(expected)


def test_layers_in_integers_are_counted_in_the_graph_that_runs(files: dict[str, tuple[Path, Any]]) -> None:
    facts = {name: result.facts for name, (_, result) in files.items()}
    assert (facts["float32"]["layers"], facts["float32"]["layers_int8"]) == (4, 0)
    assert (facts["int8"]["layers"], facts["int8"]["layers_int8"]) == (4, 4)
    assert not any(kernel.endswith("I8") for kernel in facts["float32"]["kernels"])
    assert (files["float32"][1].delegated_share, files["int8"][1].delegated_share) == (None, 1.0)


def test_a_layer_that_stays_in_float_is_named(states: dict[str, ModelState], tmp_path: Path) -> None:
    class Mixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.int8 = states["int8"].program.module(check_guards=False)
            self.first = torch.nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.int8(self.first(x))

    _, result = exported(state_of(capture(Mixed()), "int8"), tmp_path)
    assert result.outside == ("first",)
    assert result.delegated_share == 0.8


def test_hard_sigmoids_of_int8_files_are_written_as_what_they_are(files: dict[str, tuple[Path, Any]]) -> None:
    kinds = {
        name: {node.get_type_name() for node in openvino.Core().read_model(path).get_ops()}
        for name, (path, _) in files.items()
    }
    assert ("HardSigmoid" in kinds["float32"], "HardSigmoid" in kinds["int8"]) == (True, False)


def test_a_hard_sigmoid_that_is_spelled_out_computes_the_same_and_keeps_its_name() -> None:
    operators = openvino.opset13
    given = operators.parameter([1, 1001], np.float32, name="input")
    slope, offset = (operators.constant(np.float32(each)) for each in (1 / 6, 0.5))
    node = operators.hard_sigmoid(given, slope, offset)
    node.output(0).set_names({"logits"})
    model = openvino.Model([node], [given])
    values = np.linspace(-5, 5, 1001, dtype=np.float32)[None]
    (expected,) = openvino.Core().compile_model(model, "CPU")([values]).values()
    assert spell_out_hard_sigmoids(model) == 1
    answers = openvino.Core().compile_model(model, "CPU")([values])
    np.testing.assert_allclose(answers["logits"], expected, atol=1e-6)
    assert {node.get_type_name() for node in model.get_ops()} & {"HardSigmoid", "Clamp"} == {"Clamp"}


def rounded_twice(padding: int, low: float) -> openvino.Model:
    """A rounding that a convolution reads, of whose bias there is none yet, and behind it one that has a bias."""
    operators, random = openvino.opset13, np.random.default_rng(0)
    given = operators.parameter([1, 3, 5, 5], np.float32, name="input")
    last = given
    for biased in (False, True):
        limits = [operators.constant(np.full((1, 1, 1, 1), each, np.float32)) for each in (low, low + 4.08)]
        rounded = operators.fake_quantize(last, *limits, *limits, 256)
        integers = operators.constant(random.integers(-127, 128, (3, 3, 1, 1), dtype=np.int8))
        scales = operators.constant(random.uniform(0.001, 0.01, (3, 1, 1, 1)).astype(np.float32))
        weight = operators.multiply(operators.convert(integers, "f32"), scales)
        last = operators.convolution(rounded, weight, [1, 1], [padding] * 2, [padding] * 2, [1, 1])
        if biased:
            last = operators.add(last, operators.constant(random.standard_normal((1, 3, 1, 1)).astype(np.float32)))
    return openvino.Model([last], [given])


@pytest.mark.parametrize(("padding", "low", "folded"), [(0, -0.4, 2), (1, -0.4, 0), (0, 0.0, 0)])
def test_zero_points_of_layers_without_padding_are_in_their_biases(padding: int, low: float, folded: int) -> None:
    model = rounded_twice(padding, low)
    values = np.random.default_rng(1).uniform(-1, 4, (1, 3, 5, 5)).astype(np.float32)
    in_float32 = {"INFERENCE_PRECISION_HINT": "f32"}
    (expected,) = openvino.Core().compile_model(model, "CPU", in_float32)([values]).values()
    assert fold_zero_points(model) == folded
    (answers,) = openvino.Core().compile_model(model, "CPU", in_float32)([values]).values()
    np.testing.assert_allclose(answers, expected, atol=1e-4)
    lows = [node.input_value(3).get_node().data.item() for node in model.get_ops() if "Fake" in node.get_type_name()]
    assert all((each == 0) == bool(folded) or low == 0 for each in lows)


def test_inner_values_are_what_is_rounded_also_where_a_range_begins_at_zero(tmp_path: Path) -> None:
    """Two images for a file that takes one, with no kernel between them that the file has not."""
    plain, model = rounded_twice(0, -0.4), rounded_twice(0, -0.4)
    plain.add_outputs([node.output(0) for node in plain.get_ordered_ops() if node.get_type_name() == "FakeQuantize"])
    values = np.random.default_rng(1).uniform(-1, 4, (2, 3, 5, 5)).astype(np.float32)
    opened = openvino.Core().compile_model(plain, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = [np.concatenate(each) for each in zip(*(opened([one[None]]).values() for one in values), strict=True)]
    assert fold_zero_points(model) == 2
    model.outputs[0].get_tensor().set_names({"logits"})
    openvino.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    with closing(PLUGIN.tap(TapRequest(tmp_path / "model.xml", None, None, (), 1, tmp_path))) as tapped:
        seen = tapped.run(values)
    assert [each.name for each in seen.tensors][:1] == ["logits"]
    assert len(seen.tensors) == len(expected) == 3
    for tensor, wanted in zip(seen.tensors, expected, strict=True):
        np.testing.assert_allclose(tensor.values, wanted, atol=1e-4)
    assert min(each.values.min() for each in seen.tensors[1:]) < -0.3


def test_a_rounding_that_others_read_keeps_its_zero_point() -> None:
    model = rounded_twice(0, -0.4)
    rounded = next(node for node in model.get_ordered_ops() if node.get_type_name() == "FakeQuantize")
    model.add_results([openvino.opset13.result(rounded)])
    assert fold_zero_points(model) == 1


def test_the_file_says_what_it_takes(states: dict[str, ModelState], files: dict[str, Any], tmp_path: Path) -> None:
    dynamic = exported(states["float32"], tmp_path, dynamic_batch=True)
    for (path, result), size in ((files["float32"], 1), (dynamic, "batch")):
        with OpenVinoPredictor(path, threads=1) as predictor:
            assert predictor.input_info == result.input
            assert predictor.output_infos == result.outputs
            assert predictor.input_info.shape[0] == size
            assert predictor.predict(images(3).numpy())[0].shape == (3, CLASSES)
            assert predictor.predict(images(0).numpy())[0].shape == (0, CLASSES)


def test_two_int8_files_of_a_program_are_alike(states: dict[str, ModelState], files: Any, tmp_path: Path) -> None:
    again, _ = exported(states["int8"], tmp_path)
    for suffix in (".xml", ".bin"):
        assert again.with_suffix(suffix).read_bytes() == files["int8"][0].with_suffix(suffix).read_bytes()


def test_the_card_is_plain_text_and_a_value_of_openvino(files: dict[str, tuple[Path, Any]]) -> None:
    path = files["int8"][0]
    card = card_of(path)
    assert (card.classes, card.runtime, card.precision) == (NAMES, "openvino", "int8")
    model = openvino.Core().read_model(path)
    assert json.loads(model.get_rt_info(CARD_KEY).astype(str))["classes"] == list(NAMES)
    assert "käse" in path.read_text(encoding="utf-8") or "k\\u00e4se" in path.read_text(encoding="utf-8")


def test_nothing_of_the_way_there_is_in_the_file(files: dict[str, tuple[Path, Any]]) -> None:
    path, result = files["int8"]
    assert (
        {file.name for file in path.parent.iterdir()} == {path.name, *result.companions} == {"model.xml", "model.bin"}
    )
    for leak in (b"pkg.torch", b"small_programs", str(path.parent).encode(), str(Path.home()).encode()):
        assert leak not in path.read_bytes()


def test_a_file_of_no_run_is_as_large_as_both(files: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    path = Path(shutil.copytree(files["int8"][0].parent, tmp_path / "alone")) / "model.xml"
    (found,) = find_files([path], REGISTRY).files
    assert found.size_bytes == path.stat().st_size + path.with_suffix(".bin").stat().st_size
    path.with_suffix(".bin").unlink()
    with pytest.raises(UserError, match=r"model\.bin is not beside it"):
        find_files([path], REGISTRY)


def lost(path: Path, _other: Path) -> None:
    path.with_suffix(".bin").unlink()


def one_bit_off(path: Path, _other: Path) -> None:
    content = bytearray(path.with_suffix(".bin").read_bytes())
    content[len(content) // 2] ^= 1
    path.with_suffix(".bin").write_bytes(content)


def longer(path: Path, _other: Path) -> None:
    with path.with_suffix(".bin").open("ab") as file:
        file.write(b"\0")


def of_another_file(path: Path, other: Path) -> None:
    shutil.copyfile(other.with_suffix(".bin"), path.with_suffix(".bin"))


def other_operators(path: Path, _other: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'type="Convolution"', b'type="Convolutoin"'))


def no_xml(path: Path, other: Path) -> None:
    shutil.copyfile(other.with_suffix(".bin"), path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lost, r"weights in model\.bin, which is not beside it"),
        (one_bit_off, r"model\.bin is damaged, or belongs to another file than model.xml"),
        (longer, r"model\.bin is damaged, or belongs to another file than model.xml"),
        (of_another_file, r"model\.bin is damaged, or belongs to another file than model.xml"),
        (other_operators, "cannot open .*Convolutoin"),
        (no_xml, "does not begin as XML does"),
    ],
)
def test_what_is_damaged_or_missing_is_named(
    files: dict[str, tuple[Path, Any]], tmp_path: Path, damage: Callable[[Path, Path], None], said: str
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(files["int8"][0].parent, copied)
    damage(copied / "model.xml", files["float32"][0])
    with pytest.raises(ExportError, match=said) as raised:
        PLUGIN.opened(copied / "model.xml", 1).__enter__()
    assert raised.value.problems[0].hint


def test_what_another_tool_makes_of_a_file_is_opened(files: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    openvino.save_model(openvino.Core().read_model(files["float32"][0]), tmp_path / "theirs.xml")  # with our notes
    with PLUGIN.opened(files["float32"][0], 1) as ours, PLUGIN.opened(tmp_path / "theirs.xml", 1) as theirs:
        answers = [each.predict(images(2).numpy())[0] for each in (ours, theirs)]
    np.testing.assert_allclose(*answers, atol=5e-3)  # OpenVINO saves weights as float16 by itself
    with pytest.raises(UserError, match="no card"):  # theirs is another file, of which ours says nothing
        card_of(tmp_path / "theirs.xml")


def test_several_inputs_and_unknown_operators_are_refused(tmp_path: Path) -> None:
    operators = openvino.opset13
    given = [operators.parameter([1, 3], np.float32, name=name) for name in ("first", "second")]
    openvino.save_model(openvino.Model([operators.add(*given)], given), tmp_path / "two.xml")
    with pytest.raises(ValueError, match="has 2 inputs, not one"):
        OpenVinoPredictor(tmp_path / "two.xml")
    with pytest.raises(ExportError, match=r"block\.odd"):
        exported(state_of(capture(odd_net("bessel")), "float32"), tmp_path / "odd")
    assert list((tmp_path / "odd").iterdir()) == []


def test_operators_are_timed_and_known_as_layers(files: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    for path, _ in files.values():
        request = OperatorTimesRequest(path, images(1).numpy(), threads=1, warmup=1, runs=3, folder=tmp_path)
        times = PLUGIN.operator_times(request)
        assert {each.layer for each in times} - {""} == LAYERS
        assert all(each.ms >= 0 for each in times)
        assert sum(each.ms for each in times) > 0


def test_four_bits_are_refused_and_five_are_not(
    states: dict[str, ModelState], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (problem,) = PLUGIN.check(PLUGIN.options(), Numerics(bits=Bits(weights=4)))
    assert "take 4 bits" in problem.message
    assert not list(PLUGIN.check(PLUGIN.options(), Numerics(bits=Bits(weights=5))))
    packed = SimpleNamespace(facts={"layers_int4": 1})  # what the exporter `onnx` says of such a program
    monkeypatch.setattr(exporter, "write_state", lambda *_: packed)
    with pytest.raises(ExportError, match="whose weights take 4 bits"):
        exported(states["int8"], tmp_path)
    assert list(tmp_path.iterdir()) == []
