"""What accelerators take of a program, by the vendors' own tools and by tables."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from small_programs import CLASSES, SIZE, capture, odd_net
from tflite_files import export
from torch import nn

from edgeopt.errors import ExportError
from edgeopt.plugins import TASKS, AcceleratorAnswer, AcceleratorRequest, Form, ModelState, Preprocessing, Verdict
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.testing.accelerators import require_told
from edgeopt.testing.values import tiny_int8_program, tiny_program
from edgeopt_executorch.options import ExecuTorchOptions
from edgeopt_tflite.accelerators import edge_tpu, ethos_u
from edgeopt_tflite.graph import Graph
from edgeopt_tflite.options import TfliteOptions


class OddNet(nn.Module):
    """Operators that one backend or another lacks, between some that all have."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.asinh(nn.functional.hardswish(self.stem(x))) + 1.0
        return self.head(torch.fmod(x.mean((2, 3)), 0.5).cumsum(1)).relu()


def never() -> Path:
    pytest.fail("an answer about the program needs no file")


def state_of(net: nn.Module) -> ModelState:
    names = tuple(f"class {index}" for index in range(CLASSES))
    preprocessing = Preprocessing(SIZE, resize=SIZE, crop=SIZE)
    return ModelState(capture(net.eval()), Form.PROGRAM, TASKS["classification"], names, preprocessing)


@pytest.fixture(scope="module")
def ask() -> Callable[..., AcceleratorAnswer]:
    """Asks an accelerator of ExecuTorch's exporter, whose answers keep the contract."""
    plugin = load_registry().get(ExporterPlugin, "executorch")
    known = {each.name: each for each in plugin.accelerators}

    def ask(name: str, state: ModelState, **options: Any) -> AcceleratorAnswer:
        answer = known[name].ask(AcceleratorRequest(state, ExecuTorchOptions(**options), never))
        require_told(known[name], answer)
        return answer

    return ask


def left(answer: AcceleratorAnswer) -> dict[str, tuple[Verdict, str]]:
    return {each.kind: (each.verdict, each.reason) for each in answer.operators if each.verdict is not Verdict.RUNS}


@pytest.fixture(scope="module")
def odd() -> ModelState:
    return state_of(OddNet())


def test_core_ml_is_asked_through_coremltools(ask, odd) -> None:
    answer = ask("coreml", odd)
    assert set(left(answer)) == {"aten.asinh.default", "aten.fmod.Scalar"}
    assert all(verdict is Verdict.FALLS_BACK and "coremltools" in reason for verdict, reason in left(answer).values())
    assert "coremltools" in answer.source
    assert Counter(each.kind for each in answer.operators)["aten.conv2d.default"] == 1
    assert answer.operators[0].place == "stem"
    assert answer.islands == 3


def test_vulkan_says_why(ask, odd) -> None:
    answer = ask("vulkan", odd)
    missing = (Verdict.FALLS_BACK, "no operator implementation")
    assert left(answer) == {f"aten.{kind}": missing for kind in ("asinh.default", "fmod.Scalar", "cumsum.default")}
    assert answer.islands == 3


def test_qnn_is_asked_without_its_sdk_after_its_own_passes(ask, odd, monkeypatch) -> None:
    monkeypatch.delenv("QNN_SDK_ROOT", raising=False)
    answer = ask("qnn", odd)
    assert left(answer) == {"aten.fmod.Scalar": (Verdict.FALLS_BACK, "ExecuTorch has no builder of it for QNN")}
    assert answer.islands == 2
    kinds = {each.kind for each in answer.operators}
    assert "aten.asinh.default" not in kinds and "aten.log.default" in kinds, "its passes write asinh out"
    assert "QNN_SDK_ROOT" not in os.environ, "nothing was downloaded"


def test_an_int8_program_runs_as_one_piece(ask) -> None:
    answer = ask("vulkan", tiny_int8_program())
    assert not left(answer)
    assert answer.islands == 1


def test_what_the_passes_for_qnn_fail_with_is_a_refusal(ask) -> None:
    with pytest.raises(ExportError, match="passes for QNN do not take this program: Expect getitem"):
        ask("qnn", tiny_program(), precision="dynamic-int8")


def test_what_executorch_itself_refuses_is_refused(ask) -> None:
    with pytest.raises(ExportError, match="core operator set") as refused:
        ask("vulkan", state_of(odd_net("determinant")))
    assert "block.odd" in str(refused.value)


# ---- .tflite -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 file of the tiny network, whose input and output are float."""
    return export(tiny_int8_program(), tmp_path_factory.mktemp("int8")).path


def test_vela_compiles_what_runs_on_an_ethos_u(file) -> None:
    answer = ethos_u.judge(file)
    assert left(answer) == {
        "QUANTIZE": (Verdict.FALLS_BACK, "Operation has tensor with unsupported DataType Float32"),
        "DEQUANTIZE": (Verdict.FALLS_BACK, "Unsupported opType"),
    }
    assert answer.islands == 1
    assert [each.kind for each in answer.operators] == [
        Graph(file.read_bytes()).kind(operator) for operator in Graph(file.read_bytes()).operators
    ]
    assert "Vela" in answer.source


def test_vela_estimates_what_an_image_costs(file) -> None:
    small, large = (ethos_u.estimate(file, f"ethos-u55-{macs}") for macs in (32, 256))
    assert small.cycles > large.cycles > 0, "of 32 and 256 products in a cycle"
    assert large.images_per_second == pytest.approx(large.clock_mhz * 1e6 / large.cycles, rel=0.01)
    assert large.on_cpu == 2, "its input and output are float"
    assert set(large.memory_bytes) == {"sram", "off_chip_flash"}
    assert 0 < large.memory_bytes["off_chip_flash"] < 2 * file.stat().st_size
    assert large.source.startswith("Vela ")
    assert "Ethos_U55" in large.source, "the system that it assumes"


def test_vela_refuses_what_it_cannot_read(file, tmp_path) -> None:
    broken = tmp_path / "model.tflite"
    broken.write_bytes(file.read_bytes()[: len(file.read_bytes()) // 2])
    with pytest.raises(ExportError, match="Vela does not compile the file: "):
        ethos_u.judge(broken)
    with pytest.raises(ExportError, match="Vela does not compile the file: ") as refused:
        ethos_u.estimate(broken, ethos_u.PROCESSOR)
    assert "ask for no estimate" in refused.value.problems[0].hint


@pytest.fixture(scope="module")
def content(file: Path) -> bytes:
    return file.read_bytes()


def edge_tpu_of(content: bytes, change: Callable[[Graph], None] = lambda graph: None) -> AcceleratorAnswer:
    graph = Graph(content)
    change(graph)
    return edge_tpu.judge(graph)


def of_kind(graph: Graph, kind: str) -> Any:
    return next(operator for operator in graph.operators if graph.kind(operator) == kind)


def test_an_edge_tpu_takes_int8_and_leaves_the_ends_to_the_cpu(content) -> None:
    answer = edge_tpu_of(content)
    assert left(answer) == {
        "QUANTIZE": (Verdict.FALLS_BACK, "it works on float32"),
        "DEQUANTIZE": (Verdict.FALLS_BACK, "the Edge TPU has no such operator"),
    }
    assert answer.islands == 1
    assert "coral.ai" in answer.source


def _two_images(graph: Graph) -> None:
    tensor = graph.main.tensors[int(of_kind(graph, "ADD").outputs[0])]
    tensor.shape = copy.copy(tensor.shape)
    tensor.shape[0] = 2


def _uneven(graph: Graph) -> None:
    of_kind(graph, "DEPTHWISE_CONV_2D").builtinOptions.dilationWFactor = 2


def _over_images(graph: Graph) -> None:
    axes = graph.constant(int(of_kind(graph, "MEAN").inputs[1]))
    graph.set_constant(int(of_kind(graph, "MEAN").inputs[1]), axes * 0, "int32")


def _shuffled(graph: Graph) -> None:
    of_kind(graph, "FULLY_CONNECTED").builtinOptions.weightsFormat = 1


def _padded_batch(graph: Graph) -> None:
    pads = graph.constant(int(of_kind(graph, "PAD").inputs[1])).copy()
    pads[1] = 1
    graph.set_constant(int(of_kind(graph, "PAD").inputs[1]), pads, "int32")


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        (_two_images, "ADD", "only the last three sizes of [2, 16, 16, 16] may be larger than 1"),
        (_uneven, "DEPTHWISE_CONV_2D", "x and y are dilated differently"),
        (_over_images, "MEAN", "it reduces over the batch"),
        (_shuffled, "FULLY_CONNECTED", "its weights are stored in another than the default format"),
        (_padded_batch, "PAD", "it pads the batch"),
    ],
)
def test_the_conditions_of_the_edge_tpu_are_looked_at(content, change, kind, reason) -> None:
    assert left(edge_tpu_of(content, change))[kind] == (Verdict.FALLS_BACK, reason)


def test_the_edge_tpu_maps_one_piece_alone(content) -> None:
    kinds = [(each.kind, each.verdict) for each in edge_tpu_of(content, _uneven).operators]
    runs = [kind for kind, verdict in kinds if verdict is Verdict.RUNS]
    assert runs == ["PAD", "CONV_2D"]
    reasons = left(edge_tpu_of(content, _uneven))
    assert "after an operator that runs on the CPU" in reasons["MEAN"][1]


def test_the_edge_tpu_refuses_float(content) -> None:
    def to_float(graph: Graph) -> None:
        for tensor in graph.main.tensors:
            tensor.type = schema.TensorType.FLOAT32

    with pytest.raises(ExportError, match="takes int8 files alone"):
        edge_tpu_of(content, to_float)


def test_the_file_that_a_run_would_write_is_asked_about(file) -> None:
    plugin, state = load_registry().get(ExporterPlugin, "tflite"), tiny_int8_program()
    asked = {
        each.name: each.ask(AcceleratorRequest(state, TfliteOptions(), lambda: file)) for each in plugin.accelerators
    }
    assert {name: answer.islands for name, answer in asked.items()} == {"ethos-u": 1, "edgetpu": 1}


def test_every_kind_of_the_table_is_one_of_the_format() -> None:
    assert all(hasattr(schema.BuiltinOperator, kind) for kind in edge_tpu.TABLE)
