"""Fewer than eight bits in a TFLite file: weights of four bits take four, and activations of fewer than eight are
refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_programs import CLASSES, SIZE, capture, float_net, images, outputs, quantized
from tflite_files import export
from torch.export import ExportedProgram

from edgeopt.errors import ExportError, NothingChangedError
from edgeopt.export.make import Artifact
from edgeopt.plugins.declarations import Bits, ExporterPlugin, Numerics
from edgeopt.plugins.registry import load_registry
from edgeopt.preprocessing import Preprocessing
from edgeopt.recipe.lookup import resolve
from edgeopt.tasks import TASKS
from edgeopt.types import Form, ModelState
from edgeopt_tflite.graph import Graph, packed_int4, unpacked
from edgeopt_tflite.int4 import pack_weights
from edgeopt_tflite.predictor import TflitePredictor


@pytest.fixture(scope="module")
def w4() -> ExportedProgram:
    return quantized(capture(float_net()), weight_bits=4)


def state_of(program: ExportedProgram) -> ModelState:
    preprocessing = Preprocessing(SIZE, resize=SIZE, crop=SIZE)
    return ModelState(
        program, Form.PROGRAM, TASKS["classification"], tuple(map(str, range(CLASSES))), preprocessing, "w4a8"
    )


@pytest.fixture(scope="module")
def made(w4: ExportedProgram, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return {each: export(state_of(w4), tmp_path_factory.mktemp(each), int4_weights=each) for each in ("packed", "int8")}


def weights(artifact: Artifact) -> list[tuple[str, np.ndarray, int]]:
    """Type, integers by channel, and bytes of each layer's weights."""
    graph = Graph(artifact.path.read_bytes())
    found = []
    for operator in graph.operators:
        if graph.kind(operator) in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            index = int(operator.inputs[1])
            integers = graph.constant(index)
            assert integers is not None
            axis = 3 if graph.kind(operator) == "DEPTHWISE_CONV_2D" else 0
            channels = np.moveaxis(integers.reshape(graph.shape(index)), axis, 0)
            size = len(graph.model.buffers[graph.main.tensors[index].buffer].data)
            found.append((graph.dtype(index), channels.reshape(len(channels), -1), size))
    return found


def test_four_bits_are_two_to_a_byte_and_give_the_answers_of_int8(
    w4: ExportedProgram, made: dict[str, Artifact]
) -> None:
    batch = images(24)
    answers = {}
    for name, artifact in made.items():
        with TflitePredictor(artifact.path, threads=1) as predictor:
            answers[name] = predictor.predict(batch.numpy())[0]
    expected = outputs(w4, batch).numpy()
    for answer in answers.values():  # a few steps of 255: a kernel may round a tie to the other side
        assert np.abs(answer - expected).max() < 0.03 * np.abs(expected).max()
    packed, plain = weights(made["packed"]), weights(made["int8"])
    assert [kind for kind, *_ in packed] == ["int4"] * 4
    assert [kind for kind, *_ in plain] == ["int8"] * 4
    for (_, integers, size), (_, same, _) in zip(packed, plain, strict=True):
        assert np.array_equal(integers, same)
        assert size == (integers.size + 1) // 2
        assert max(np.unique(channel).size for channel in integers) <= 16


def test_the_report_tells_what_four_bits_cost(made: dict[str, Artifact]) -> None:
    packed, plain = made["packed"].exported, made["int8"].exported
    assert (packed.facts["layers_int4"], plain.facts["layers_int4"]) == (4, 0)
    assert packed.facts["layers_quantized"] == plain.facts["layers_quantized"] == 4
    assert plain.delegated_share == 1.0
    assert not plain.warnings
    assert packed.delegated_share is not None
    assert packed.delegated_share < 1.0
    assert "run 3 of 4 such layers" in packed.warnings[0]


def test_narrow_activations_are_refused(tmp_path: Path) -> None:
    narrow = quantized(capture(float_net()), activation_bits=5)
    with pytest.raises(ExportError, match="those of this program take 5 bits"):
        export(state_of(narrow), tmp_path)
    use = resolve(ExporterPlugin, "tflite", {}, load_registry())
    assert use.plugin.check is not None
    (problem,) = use.plugin.check(use.options, Numerics(bits=Bits(4, 6)))
    assert "take 6 bits" in str(problem)
    assert not list(use.plugin.check(use.options, Numerics(bits=Bits(2, 8))))


def test_a_file_that_lacks_a_layer_is_found_out(w4: ExportedProgram, made: dict[str, Artifact]) -> None:
    graph = Graph(made["int8"].path.read_bytes())
    graph.operators = graph.operators[:1]
    with pytest.raises(NothingChangedError, match="4 layers of the program have weights of four bits or fewer"):
        pack_weights(w4, graph)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(-8, 7), min_size=1, max_size=33))
def test_packing_is_exact_for_any_size(integers: list[int]) -> None:
    values = np.array(integers, np.int8)
    content = packed_int4(values)
    assert len(content) == (len(values) + 1) // 2
    assert np.array_equal(unpacked(content, len(values)), values)
