"""The TFLite exporter and predictor: what the file computes, carries and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from small_programs import CLASSES, SIZE, capture, float_net, images, odd_net, outputs, quantized
from tflite_files import export
from torch.export import ExportedProgram

from edgeopt.applications.snippets import feeding_lines
from edgeopt.cards.reading import card_of
from edgeopt.errors import ExportError, NothingChangedError
from edgeopt.export.make import Artifact
from edgeopt.plugins.registry import load_registry
from edgeopt.preprocessing import Preprocessing
from edgeopt.tasks import TASKS
from edgeopt.types import Form, ModelState
from edgeopt_executorch.quantizer import build_xnnpack
from edgeopt_tflite import audit, rewrites
from edgeopt_tflite.convert import convert
from edgeopt_tflite.delegate import delegation
from edgeopt_tflite.graph import Graph
from edgeopt_tflite.integrity import require_whole
from edgeopt_tflite.metadata import read_metadata
from edgeopt_tflite.precision import to_precision
from edgeopt_tflite.predictor import TflitePredictor
from edgeopt_torchao.bits.rules import IN_FLOAT, BitRules, NarrowingQuantizer
from edgeopt_torchao.quantize.convert import convert as convert_quantized
from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq

NAMES = tuple(f"käse {index}" for index in range(CLASSES))


@pytest.fixture(scope="module")
def programs() -> dict[str, ExportedProgram]:
    program = capture(float_net())
    return {"float32": program, "int8": quantized(program)}


def state_of(program: ExportedProgram, precision: str = "float32", classes: tuple[str, ...] = NAMES) -> ModelState:
    preprocessing = Preprocessing(SIZE, resize=SIZE, crop=SIZE)
    return ModelState(program, Form.PROGRAM, TASKS["classification"], classes, preprocessing, precision)


@dataclass(frozen=True)
class Made:
    """Files by the precision of their program, and what litert-torch gave for each before anything was done to it."""

    artifacts: dict[str, Artifact]
    converted: dict[str, bytes]


@pytest.fixture(scope="module")
def both(programs: dict[str, ExportedProgram], tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Conversions take seconds, so each is done once."""
    artifacts, converted = {}, {}
    for precision, program in programs.items():

        def recording(program: ExportedProgram, *, takes_pixels: bool, precision: str = precision) -> bytes:
            converted[precision] = convert(program, takes_pixels=takes_pixels)
            return converted[precision]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("edgeopt_tflite.exporter.convert", recording)
            artifacts[precision] = export(state_of(program, precision), tmp_path_factory.mktemp(precision))
    return Made(artifacts, converted)


@pytest.fixture(scope="module")
def made(both: Made) -> dict[str, Artifact]:
    return both.artifacts


@pytest.fixture(scope="module")
def converted(both: Made) -> dict[str, bytes]:
    return both.converted


# ---- what a file computes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("int8", 0.02)])
def test_the_file_computes_what_the_program_computes(
    programs: dict[str, ExportedProgram], made: dict[str, Artifact], precision: str, tolerance: float
) -> None:
    batch = images(33)
    expected = outputs(programs[precision], batch).numpy()
    with TflitePredictor(made[precision].path, threads=1) as predictor:
        logits = predictor.predict(batch.numpy())[0]
        assert predictor.predict(batch.numpy()[:0])[0].shape == (0, CLASSES)
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() <= tolerance * np.ptp(expected)
    assert (logits.argmax(1) == expected.argmax(1)).mean() >= 0.97


@pytest.fixture(scope="module")
def heavy() -> ExportedProgram:
    """Of 400,000 weights: ai-edge-quantizer puts those of all but tiny files behind the flatbuffer."""
    torch.manual_seed(0)
    convolutions = [torch.nn.Conv2d(3, 256, 1), torch.nn.ReLU(), torch.nn.Conv2d(256, 160, 3)]
    pooling = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    return capture(torch.nn.Sequential(*convolutions, *pooling, torch.nn.Linear(160, CLASSES)))


@pytest.mark.parametrize(
    ("precision", "tolerance", "bytes_each"),
    [("float16", 0.01, 2), ("dynamic-int8", 0.05, 1), ("weight-only-int8", 0.05, 1)],
)
def test_weights_of_a_large_file_survive_a_smaller_precision(
    heavy: ExportedProgram, tmp_path: Path, precision: str, tolerance: float, bytes_each: int
) -> None:
    batch = images(8)
    expected = outputs(heavy, batch).numpy()
    weights = sum(each.numel() for each in heavy.state_dict.values())
    artifact = export(state_of(heavy), tmp_path, precision=precision)
    assert bytes_each * weights < artifact.path.stat().st_size < 1.2 * bytes_each * weights
    with TflitePredictor(artifact.path, threads=1) as predictor:
        logits = predictor.predict(batch.numpy())[0]
    assert np.abs(logits - expected).max() <= tolerance * np.ptp(expected)


def test_one_delegate_takes_everything(made: dict[str, Artifact]) -> None:
    """Hard-swish, hard-sigmoid and squeeze-and-excitation included, which cut int8 files into pieces."""
    for artifact in made.values():
        exported = artifact.exported
        assert (exported.delegated_share, exported.facts["partitions"], exported.outside) == (1.0, 1, ())
        assert exported.facts["operators"] > 10
    assert made["int8"].exported.facts["layers_quantized"] == made["int8"].exported.facts["layers"] == 4
    assert made["float32"].exported.facts["layers_quantized"] == 0
    assert "TRANSPOSE" not in Graph(made["int8"].path.read_bytes()).kinds()


# ---- rewrites ------------------------------------------------------------------------------------------------------


def run(content: bytes, folder: Path, batch: torch.Tensor) -> np.ndarray:
    path = folder / "graph.tflite"
    path.write_bytes(content)
    with TflitePredictor(path, threads=1) as predictor:
        return predictor.predict(batch.numpy())[0]


def test_hard_swish_runs_in_float_inside_the_delegate(
    programs: dict[str, ExportedProgram], converted: dict[str, bytes], tmp_path: Path
) -> None:
    graph = Graph(converted["int8"])
    assert delegation(converted["int8"]).outside == ("HARD_SWISH",)
    assert rewrites.float_operators(graph) == 1
    assert delegation(graph.to_bytes()).outside == ()
    assert rewrites.float_operators(Graph(converted["float32"])) == 0


class Pooled(torch.nn.Module):
    """A padded max pooling, after a ReLU or not, the whole at the edge of an image."""

    def __init__(self, rectified: bool) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, CLASSES, 3)
        self.activation = torch.nn.ReLU() if rectified else torch.nn.Identity()
        self.pool = torch.nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.activation(self.stem(x))).mean((2, 3))


@pytest.mark.parametrize("heads", [1, 2])
def test_a_product_of_two_activations_is_no_layer(heads: int, tmp_path: Path) -> None:
    """Attention whose heads share their keys: LiteRT's converter makes a fully connected operator without weights of
    it.
    """

    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = torch.nn.Conv2d(3, 8 * heads, 3, 2), torch.nn.Conv2d(3, 8, 3, 2)
            self.head = torch.nn.Linear(8 * heads, CLASSES)

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            key = self.key(batch).flatten(2)
            query = self.query(batch).flatten(2)
            places = key.shape[2]
            query = query.reshape(-1, heads, 8, places).transpose(2, 3).reshape(-1, heads * places, 8)
            values = (query @ key).softmax(-1) @ key.transpose(1, 2)
            return self.head(values.reshape(-1, heads, places, 8).mean(2).flatten(1))

    torch.manual_seed(0)
    program = quantized(capture(Attention().eval()))
    artifact = export(state_of(program, "int8"), tmp_path)
    graph = Graph(artifact.path.read_bytes())
    products = [
        operator
        for operator in graph.operators
        if graph.kind(operator) in ("FULLY_CONNECTED", "BATCH_MATMUL")
        and graph.constant(int(operator.inputs[1])) is None
    ]
    assert len(products) == 2
    counts = audit.layers_of_file(graph)
    assert (counts.int8, counts.layers) == (3, 3)
    with TflitePredictor(artifact.path, threads=1) as predictor:
        expected = outputs(program, images(5)).numpy()
        assert np.abs(predictor.predict(images(5).numpy())[0] - expected).max() <= 0.05 * np.ptp(expected)


@pytest.mark.parametrize("rectified", [True, False])
def test_padding_before_a_pooling_stays_in_the_delegate_where_zero_is_the_least(
    tmp_path: Path, rectified: bool
) -> None:
    torch.manual_seed(0)
    program = capture(Pooled(rectified).eval())
    before = convert(program)
    graph = Graph(before)
    assert graph.kinds()["PADV2"] == 1
    assert rewrites.plain_padding(graph) == int(rectified)
    batch = images(3) - 5  # far below zero where nothing cuts it off
    np.testing.assert_array_equal(run(graph.to_bytes(), tmp_path, batch), run(before, tmp_path, batch))
    np.testing.assert_allclose(run(graph.to_bytes(), tmp_path, batch), outputs(program, batch).numpy(), atol=1e-4)
    taken = delegation(graph.to_bytes())
    assert taken.outside == (() if rectified else ("PADV2",))
    assert (taken.partitions == 1, taken.share == 1.0) == (rectified, rectified)


def test_constants_are_aligned_and_names_are_short(made: dict[str, Artifact]) -> None:
    content = made["int8"].path.read_bytes()
    graph = Graph(content)
    for buffer in graph.model.buffers:
        if buffer.data is not None and len(buffer.data):
            assert content.find(bytes(buffer.data)) % 16 == 0 or len(buffer.data) < 64  # short ones may occur by chance
    names = [tensor.name.decode() for tensor in graph.main.tensors]
    assert len(set(names)) == len(names)
    assert {"input", "logits"} <= set(names)
    assert max(map(len, names)) < 40
    assert b"small_programs" not in content
    assert str(Path.home()).encode() not in content


def test_equal_arrays_are_written_once(made: dict[str, Artifact]) -> None:
    content = made["int8"].path.read_bytes()
    root = schema.Model.GetRootAs(content, 0)
    written: dict[bytes, set[int]] = {}
    for index in range(root.Subgraphs(0).TensorsLength()):
        parameters = root.Subgraphs(0).Tensors(index).Quantization()
        if parameters is not None and parameters.ZeroPointLength():
            values = parameters.ZeroPointAsNumpy()
            written.setdefault(values.tobytes(), set()).add(values.__array_interface__["data"][0])
    assert max(map(len, written)) > 8
    assert all(len(places) == 1 for places in written.values())


@pytest.mark.parametrize(("source", "kept_float"), [("EXP", 1), ("LOGISTIC", 0)])
def test_auto_leaves_lonely_operators_in_float(
    converted: dict[str, bytes], tmp_path: Path, source: str, kept_float: int
) -> None:
    """An int8 sum between float operators, but not where its conversions belong to a table."""
    graph = Graph(converted["float32"])
    shape, quantization = (1, 3, SIZE, SIZE), (0.05, -100)
    given = [graph.add_tensor(shape, "float32") for _ in range(4)]
    int8 = [graph.add_tensor(shape, "int8", quantization) for _ in range(3)]
    graph.operators = [
        graph.operator(source, [given[0]], [given[1]]),
        graph.quantize(given[1], int8[0]),
        graph.quantize(given[1], int8[1]),
        graph.operator("MUL", int8[:2], [int8[2]], version=2),
        graph.dequantize(int8[2], given[2]),
        graph.operator("EXP", [given[2]], [given[3]]),
    ]
    graph.replace_input(given[0])
    graph.replace_output(int(graph.main.outputs[0]), given[3])
    batch = images(1).clip(max=1) - 1
    before = run(graph.to_bytes(), tmp_path, batch)
    assert rewrites.float_islands(graph) == kept_float
    graph.compact("input", ["logits"])
    assert ("QUANTIZE" in graph.kinds()) == (not kept_float)
    after = run(graph.to_bytes(), tmp_path, batch)
    assert np.abs(before - after).max() <= 0.3
    if kept_float:
        np.testing.assert_allclose(after, np.exp(np.exp(batch.numpy()) ** 2), rtol=1e-4)


# ---- what must be impossible ---------------------------------------------------------------------------------------


def test_a_file_with_quantization_spelled_out_is_refused(
    programs: dict[str, ExportedProgram], monkeypatch: pytest.MonkeyPatch
) -> None:
    """litert-torch makes one when it is not told the quantizer."""
    monkeypatch.setattr("edgeopt_tflite.convert.is_quantized", lambda _program: False)
    graph = Graph(convert(programs["int8"]))
    with pytest.raises((NothingChangedError, ExportError)):
        audit.require_int8(programs["int8"], graph)


def test_files_and_programs_that_do_not_match_are_refused(
    programs: dict[str, ExportedProgram], converted: dict[str, bytes]
) -> None:
    graphs = {precision: Graph(content) for precision, content in converted.items()}
    assert audit.require_int8(programs["int8"], graphs["int8"]).int8 == 4
    assert audit.require_float(programs["float32"], graphs["float32"]).float32 == 4
    with pytest.raises(NothingChangedError, match=r"4 of 4 layers of the program are int8, and 0 of 4"):
        audit.require_int8(programs["int8"], graphs["float32"])
    with pytest.raises(ExportError, match="program is float"):
        audit.require_float(programs["float32"], graphs["int8"])
    with pytest.raises(NothingChangedError, match="0 of 4 layers"):
        audit.require_converted(audit.layers_of_file(graphs["float32"]), graphs["float32"], "float16")


@pytest.mark.parametrize(
    ("precision", "options", "message"),
    [
        ("int8", {"precision": "float16"}, "made of a float program"),
        ("float32", {"quantized_io": "int8"}, "needs an integer program"),
    ],
)
def test_options_that_do_not_fit_the_program_are_refused(
    programs: dict[str, ExportedProgram], tmp_path: Path, precision: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        export(state_of(programs[precision], precision), tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "operator"),
    [("determinant", "linalg_det"), ("bessel", "special_i0"), ("complex", "fft_fft2"), ("double", "sin")],
)
def test_an_operator_that_litert_lacks_is_named(tmp_path: Path, kind: str, operator: str) -> None:
    with pytest.raises(ExportError, match=rf"LiteRT cannot run aten\.{operator}.*\(in block\.odd\)"):
        export(state_of(capture(odd_net(kind)), classes=NAMES[:4]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def upsampling() -> torch.nn.Module:
    net = torch.nn.Sequential()
    net.add_module("stem", torch.nn.Conv2d(3, 4, 3))
    net.add_module("up", torch.nn.ConvTranspose2d(4, 8, 2, 2))
    net.add_module("last", torch.nn.Conv2d(8, len(NAMES), 3))
    net.add_module("pool", torch.nn.AdaptiveAvgPool2d(1))
    net.add_module("flat", torch.nn.Flatten())
    return net.eval()


class Rows(torch.nn.Module):
    """A recurrent layer over an image's rows, between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 4, 3)
        self.rows = torch.nn.GRU(4, 4, batch_first=True)
        self.head = torch.nn.Linear(4, len(NAMES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rows(self.stem(x).mean(3).transpose(1, 2))[0].mean(1))


def test_an_int8_file_with_a_recurrent_layer_is_refused_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"writes aten\.gru\.input out as many float layers"):
        export(state_of(quantized(capture(Rows().eval())), "int8"), tmp_path)


class Normalized(torch.nn.Module):
    """Features of length one, as `F.normalize` has them, between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3)
        self.last = torch.nn.Conv2d(8, len(NAMES), 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.nn.functional.normalize(self.stem(x), dim=1)).mean((2, 3))


def test_what_is_expanded_to_divide_by_it_converts(tmp_path: Path) -> None:
    program = capture(Normalized().eval())
    predictor = TflitePredictor(export(state_of(program), tmp_path).path, threads=1)
    batch = images(3)
    np.testing.assert_allclose(predictor.predict(batch.numpy())[0], outputs(program, batch).numpy(), atol=1e-5)


def test_an_int8_layer_that_would_be_float_is_named(tmp_path: Path) -> None:
    program = quantized(capture(upsampling()))
    with pytest.raises(
        ExportError, match=r"no int8 transposed convolution, and would leave up in float\n.*'up' = 'float'"
    ):
        export(state_of(program, "int8"), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layer", ["stem", "up", "last"])
def test_a_layer_that_the_program_keeps_in_float_is_float_in_the_file(tmp_path: Path, layer: str) -> None:
    kept = dict.fromkeys({layer, "up"}, IN_FLOAT)
    quantizer = NarrowingQuantizer(build_xnnpack(per_channel=True, qat=False), BitRules(layers=kept))
    prepared = prepare_ptq(capture(upsampling()), quantizer)
    calibrate(prepared, [images(16)])
    program = capture(convert_quantized(prepared))
    artifact = export(state_of(program, "int8"), tmp_path)
    assert artifact.exported.facts["layers_quantized"] == 3 - len(kept)
    graph = Graph(artifact.path.read_bytes())
    weights = [graph.dtype(int(each.inputs[1])) for each in graph.operators if "CONV" in graph.kind(each)]
    assert weights.count("float32") == len(kept)
    assert not {"SIN", "COS"} & set(graph.kinds())
    predictor = TflitePredictor(artifact.path, threads=1)
    expected = outputs(program, batch := images(3)).numpy()
    np.testing.assert_allclose(predictor.predict(batch.numpy())[0], expected, atol=0.12 * np.ptp(expected))


class Waves(torch.nn.Module):
    """A layer between two others, and a cosine of a sine behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, 2)
        self.middle = torch.nn.Conv2d(8, 8, 3)
        self.last = torch.nn.Conv2d(8, 5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.cos(torch.sin(self.middle(torch.relu(self.stem(x)))))).mean((2, 3))


def test_a_networks_own_cosine_of_a_sine_stays_beside_float_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    quantizer = NarrowingQuantizer(build_xnnpack(per_channel=True, qat=False), BitRules(layers={"middle": IN_FLOAT}))
    prepared = prepare_ptq(capture(Waves().eval()), quantizer)
    calibrate(prepared, [images(16)])
    program = capture(convert_quantized(prepared))
    artifact = export(state_of(program, "int8"), tmp_path)
    kinds = Graph(artifact.path.read_bytes()).kinds()
    assert (kinds["SIN"], kinds["COS"]) == (1, 1)
    expected = outputs(program, batch := images(3)).numpy()
    found = TflitePredictor(artifact.path, threads=1).predict(batch.numpy())[0]
    np.testing.assert_allclose(found, expected, atol=0.12 * np.ptp(expected))


def test_a_file_that_litert_cannot_open_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="RFFT2D"):  # its kernel takes powers of two alone
        export(state_of(capture(odd_net("fft")), classes=NAMES[:4]), tmp_path)
    assert list(tmp_path.iterdir()) == []


class Twofold(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.mean((2, 3)), x.amax((2, 3))


def test_outputs_that_nobody_names_are_refused(tmp_path: Path) -> None:
    program = torch.export.export(Twofold(), (images(1),))
    with pytest.raises(ExportError, match="returns 2 outputs, and its state names 1: logits"):
        export(state_of(program, classes=NAMES[:3]), tmp_path)


def test_many_outputs_keep_their_order_and_names(tmp_path: Path) -> None:
    """More than ten, so that output_10 comes before output_2 where somebody sorts names."""

    class Many(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(x.mean((2, 3)) * (place + 1.5) for place in range(12))

    names = tuple(f"out{place}" for place in range(12))
    state = replace(state_of(torch.export.export(Many(), (images(1),)), classes=NAMES[:3]), output_names=names)
    artifact = export(state, tmp_path)
    signature = Interpreter(model_path=str(artifact.path)).get_signature_runner()
    given = images(1)
    found = signature(input=given.permute(0, 2, 3, 1).numpy())
    assert [info.name for info in artifact.exported.outputs] == list(names)
    with TflitePredictor(artifact.path, threads=1) as predictor:
        answers = predictor.predict(given.numpy())
    for place, expected in enumerate(Many()(given)):
        np.testing.assert_allclose(answers[place], expected.numpy(), atol=1e-5)
        np.testing.assert_allclose(found[names[place]], expected.numpy(), atol=1e-5)


# ---- what a file carries -------------------------------------------------------------------------------------------


def test_labels_normalization_and_card_are_read_back(made: dict[str, Artifact]) -> None:
    for precision, artifact in made.items():
        packed = read_metadata(artifact.path)
        assert packed.labels == NAMES
        np.testing.assert_allclose(packed.mean, [123.675, 116.28, 103.53], rtol=1e-5)
        np.testing.assert_allclose(packed.std, [58.395, 57.12, 57.375], rtol=1e-5)
        assert packed.card["classes"] == list(NAMES)
        assert packed.card["precision"] == precision
        assert packed.card["input"]["shape"] == [1, SIZE, SIZE, 3]
        assert json.loads(card_of(artifact.path).to_json()) == packed.card


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_lines_that_a_card_gives_answer_as_the_predictor_does(precision: str, made: dict[str, Artifact]) -> None:
    """`edgeopt card FILE --lang python`, from the card within the file."""
    artifact = made[precision]
    lines: dict[str, Any] = {"__name__": "lines"}
    exec(feeding_lines(card_of(artifact.path), "python", artifact.path.name, load_registry()), lines)
    pixels = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    output = lines["open_file"](str(artifact.path))(lines["model_input"](pixels))
    preprocessing = Preprocessing.from_json(artifact.card.preprocessing)
    with TflitePredictor(artifact.path, threads=1) as predictor:
        (logits,) = predictor.predict(preprocessing.normalize(pixels))
    (label, share), *_ = lines["likeliest"](output)
    assert label == NAMES[logits.argmax()]
    assert share == pytest.approx(float(np.exp(logits - logits.max()).sum() ** -1), abs=1e-5)


def test_a_file_without_metadata_says_so(converted: dict[str, bytes], tmp_path: Path) -> None:
    plain = tmp_path / "plain.tflite"
    plain.write_bytes(converted["float32"])
    with pytest.raises(ValueError, match="no labels and no card"):
        read_metadata(plain)


# ---- opening files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:100],
        lambda content: content[:5],
        lambda content: b"",
        lambda content: b"not a model, but long enough to be one",
        lambda content: content[:8] + bytes([255]) * 64 + content[72:],
        lambda content: bytes([255, 255, 255, 127]) + content[4:],
    ],
)
def test_a_damaged_file_is_explained(
    made: dict[str, Artifact], tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(damage(made["int8"].path.read_bytes()))
    with pytest.raises(ValueError, match=r"broken\.tflite"):
        require_whole(broken)


def test_a_file_cut_off_behind_its_flatbuffer_never_reaches_native_code(heavy: ExportedProgram, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.tflite", tmp_path / "cut.tflite"
    whole.write_bytes(to_precision(convert(heavy), "float16"))
    require_whole(whole)
    cut.write_bytes(whole.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"cut\.tflite is damaged.*a constant ends after the file"):
        require_whole(cut)


def test_a_wrong_batch_is_explained(made: dict[str, Artifact]) -> None:
    predictor = TflitePredictor(made["int8"].path, threads=1)
    with pytest.raises(ValueError, match="not float64"):
        predictor.predict(images(1).numpy().astype(np.float64))
    with pytest.raises(ValueError, match=r"\(3, 24, 24\).*not float32 \(3, 8, 8\)"):
        predictor.predict(np.zeros((1, 3, 8, 8), np.float32))


def test_the_predictor_imports_no_torch_and_no_tensorflow() -> None:
    code = (
        "import sys, edgeopt_tflite.predictor\n"
        "assert not {'torch', 'tensorflow', 'jax', 'litert_torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_exporter_imports_no_tensorflow(tmp_path: Path) -> None:
    """Torch and TensorFlow in one process bring two copies of the same native libraries."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from edgeopt.plugins.declarations import ExporterPlugin\n"
        "from edgeopt.plugins.registry import load_registry\n"
        "from edgeopt.recipe.lookup import resolve\n"
        "from edgeopt.testing import tiny_data, tiny_program\n"
        "from edgeopt.testing.exporter import export_file\n"
        "use = resolve(ExporterPlugin, 'tflite', {}, load_registry())\n"
        "path, _ = export_file(use, tiny_program(tiny_data()), Path(sys.argv[1]))\n"
        "assert path.exists() and 'litert_torch' in sys.modules\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, timeout=120)


def test_pixels_are_normalized_inside(programs: dict[str, ExportedProgram], tmp_path: Path) -> None:
    state = state_of(programs["float32"])
    artifact = export(state, tmp_path, input={"kind": "uint8-nhwc"})
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    expected = outputs(state.program, torch.from_numpy(state.preprocessing.normalize(pixels))).numpy()
    with TflitePredictor(artifact.path, threads=1) as predictor:
        assert (predictor.input_info.dtype, predictor.input_info.holds) == ("uint8", "pixels")
        np.testing.assert_allclose(predictor.predict(pixels)[0], expected, atol=1e-4)
    assert read_metadata(artifact.path).std == (1.0, 1.0, 1.0)
    assert replace(artifact.exported.input, name="") == replace(predictor.input_info, name="")
