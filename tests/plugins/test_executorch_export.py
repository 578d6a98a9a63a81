"""The ExecuTorch exporter and predictor: what the file computes, carries and refuses."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_programs import CLASSES, SIZE, capture, float_net, images, odd_net, outputs, quantized
from torch._export.utils import _collect_all_valid_cia_ops
from torch.export import ExportedProgram
from torch.nn import functional

from edgeopt.networks.tracing import quick_tracing
from edgeopt_executorch.lowering import ExecuTorchReport, export_executorch
from edgeopt_executorch.options import CARD_METHOD
from edgeopt_executorch.predictor import ExecuTorchPredictor
from edgeopt_executorch.quantizer import build_xnnpack
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.prepare import prepare_ptq, prepare_qat

CARD = '{"classes": ["käse", "b"]}'


@pytest.fixture(scope="module")
def programs() -> dict[str, ExportedProgram]:
    program = capture(float_net())
    return {"float": program, "int8": quantized(program)}


@pytest.fixture(scope="module")
def reports(
    programs: dict[str, ExportedProgram], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, ExecuTorchReport]:
    folder = tmp_path_factory.mktemp("pte")
    return {
        precision: export_executorch(program, folder / f"{precision}.pte", card_json=CARD)
        for precision, program in programs.items()
    }


@pytest.mark.parametrize(("precision", "tolerance"), [("float", 1e-5), ("int8", 0.1)])
def test_the_file_computes_what_the_program_computes(
    programs: dict[str, ExportedProgram], reports: dict[str, ExecuTorchReport], precision: str, tolerance: float
) -> None:
    batch = images(33)
    expected = outputs(programs[precision], batch).numpy()
    with ExecuTorchPredictor(reports[precision].path, threads=1) as predictor:
        logits = predictor.predict(batch.numpy())[0]
        assert predictor.constant(CARD_METHOD) == CARD
        assert predictor.constant("absent") is None
        assert (predictor.input_info.dtype, predictor.input_info.shape) == ("float32", (1, 3, SIZE, SIZE))
        assert (predictor.output_infos[0].dtype, predictor.output_infos[0].shape) == ("float32", (1, CLASSES))
        assert predictor.predict(batch.numpy()[:0])[0].shape == (0, CLASSES)
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() <= tolerance * np.abs(expected).max()


def test_everything_runs_in_one_delegate(reports: dict[str, ExecuTorchReport]) -> None:
    for report in reports.values():
        assert (report.delegated_share, report.partitions, report.outside) == (1.0, 1, ())
        assert report.compute_nodes > 10
    assert (reports["float"].weighted_layers, reports["float"].quantized_layers) == (4, 0)
    assert (reports["int8"].weighted_layers, reports["int8"].quantized_layers) == (4, 4)


def test_the_report_describes_the_file(reports: dict[str, ExecuTorchReport]) -> None:
    for report in reports.values():
        assert report.path.stat().st_size == report.size_bytes
    folder = reports["float"].path.parent
    assert sorted(path.name for path in folder.iterdir()) == ["float.pte", "int8.pte"]


def test_one_file_takes_batches_up_to_its_bound_and_leaves_the_program_alone(
    programs: dict[str, ExportedProgram], tmp_path: Path
) -> None:
    program = programs["int8"]
    before = str(program.graph)
    report = export_executorch(program, tmp_path / "model.pte", card_json=CARD, max_batch=4)
    assert str(program.graph) == before
    batch = images(7)
    expected = outputs(program, batch).numpy()
    with ExecuTorchPredictor(report.path, threads=1) as predictor:
        assert predictor.input_info.shape[0] == report.max_batch == 4
        for size in (1, 2, 3, 4, 7):
            logits = predictor.predict(batch.numpy()[:size])[0]
            assert np.abs(logits - expected[:size]).max() <= 0.1 * np.abs(expected).max()


class Padded(torch.nn.Module):
    """A padding between a layer and what is no convolution, as Swin transformers and focus layers have it."""

    def __init__(self, amounts: tuple[int, ...]) -> None:
        super().__init__()
        self.amounts = amounts
        self.stem = torch.nn.Conv2d(3, 8, 3, 2, 1)
        self.add = torch.nn.Conv2d(8, 8, 1)
        self.head = torch.nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.nn.functional.pad(x + self.add(x), self.amounts)
        x = x[:, :, ::2] + x[:, :, 1::2]
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("amounts", [(0, 0, 0, 0), (1, 1, 0, 2)])
def test_an_int8_padding_before_something_else_than_a_convolution_loads(
    tmp_path: Path, amounts: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    program = quantized(capture(Padded(amounts).eval()))
    report = export_executorch(program, tmp_path / "model.pte", card_json=CARD)
    batch = images(4)
    expected = outputs(program, batch).numpy()
    with ExecuTorchPredictor(report.path, threads=1) as predictor:
        assert np.abs(predictor.predict(batch.numpy())[0] - expected).max() <= 0.1 * np.abs(expected).max()


def test_names_that_are_no_names_in_a_graph_do_not_matter(tmp_path: Path) -> None:
    """A RegNet calls its blocks `block1-0`, which XNNPACK's folding of BatchNorm does not take."""

    def block() -> torch.nn.Sequential:
        return torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.ReLU())

    torch.manual_seed(0)
    body = torch.nn.Sequential()
    for name in ("block-0", "block_0", "block 0"):
        body.add_module(name, block())
    net = torch.nn.Sequential(body, torch.nn.Flatten(), torch.nn.LazyLinear(CLASSES))
    net(images(4))
    program = capture(net.eval())
    before = set(program.state_dict)
    report = export_executorch(program, tmp_path / "model.pte", card_json=CARD)
    assert set(program.state_dict) == before
    assert (report.delegated_share, report.weighted_layers) == (1.0, 4)
    with ExecuTorchPredictor(report.path, threads=1) as predictor:
        difference = predictor.predict(images(3).numpy())[0] - outputs(program, images(3)).numpy()
    assert np.abs(difference).max() < 1e-5


@pytest.mark.parametrize("qat", [True, False])
def test_a_dropout_before_a_reshape_or_a_sum_leaves_a_file_that_loads_and_closes(qat: bool, tmp_path: Path) -> None:
    """The order of Inception, whose file XNNPACK refused, and of Swin, whose file aborted the
    process that closed it.
    """

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 8, 3)
            self.dropout = torch.nn.Dropout(0.5)
            self.middle, self.head = torch.nn.Linear(8, 8), torch.nn.Linear(8, CLASSES)

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            x = torch.nn.functional.adaptive_avg_pool2d(self.convolution(batch), 1)
            x = torch.flatten(self.dropout(x), 1)
            return self.head(x + self.dropout(self.middle(x)))

    torch.manual_seed(0)
    prepared = (prepare_qat if qat else prepare_ptq)(capture(Net().eval()), build_xnnpack(per_channel=True, qat=qat))
    for seed in range(4):
        torch.manual_seed(seed)
        prepared(images(16))
    program = capture(convert(prepared))
    report = export_executorch(program, tmp_path / "model.pte", card_json=CARD)
    assert report.delegated_share == 1.0
    with ExecuTorchPredictor(report.path, threads=1) as predictor:
        expected = outputs(program, images(5)).numpy()
        assert np.abs(predictor.predict(images(5).numpy())[0] - expected).max() <= 0.05 * np.abs(expected).max()


def test_quick_tracing_changes_nothing_but_debug_handles(
    programs: dict[str, ExportedProgram], reports: dict[str, ExecuTorchReport], tmp_path: Path
) -> None:
    with quick_tracing():
        quick = export_executorch(programs["int8"], tmp_path / "model.pte", card_json=CARD)
    assert quick.size_bytes == reports["int8"].size_bytes
    with (
        ExecuTorchPredictor(quick.path, threads=1) as one,
        ExecuTorchPredictor(reports["int8"].path, threads=1) as other,
    ):
        assert np.array_equal(one.predict(images(9).numpy())[0], other.predict(images(9).numpy())[0])


def test_quick_tracing_knows_a_library_that_is_loaded_within() -> None:
    with quick_tracing():
        before = _collect_all_valid_cia_ops()
        with torch.library._scoped_library("loaded_within", "DEF") as library:
            library.define("twice(Tensor x) -> Tensor", tags=torch.Tag.pt2_compliant_tag)
            library.impl("twice", lambda x: 2 * x, "CompositeImplicitAutograd")
            assert {str(each) for each in _collect_all_valid_cia_ops() - before} == {"loaded_within.twice.default"}


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_quick_tracing_has_the_shapes_of_hard_swishes(inplace: bool, memory_format: torch.memory_format) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Hardswish(inplace=inplace), torch.nn.Flatten(2, 3))
    program = capture(net.to(memory_format=memory_format).eval())

    def walked() -> list[str]:
        nodes = program.run_decompositions({}).graph.nodes
        values = [(node.target, node.meta["val"]) for node in nodes if node.op == "call_function"]
        tensors = [(target, value) for target, value in values if isinstance(value, torch.Tensor)]
        return [f"{target} {tuple(value.shape)} {value.stride()} {value.dtype}" for target, value in tensors]

    before = walked()
    with quick_tracing():
        assert walked() == before
    assert any("hardswish" in each for each in before)
    kernel = torch.ops.aten.hardswish.default.py_kernels[torch._C.DispatchKey.Meta]
    assert kernel is not torch.empty_like


def test_what_stays_outside_the_delegate_is_named_with_its_module(tmp_path: Path) -> None:
    report = export_executorch(capture(odd_net("cumulative")), tmp_path / "model.pte", card_json=CARD)
    assert [(one.operator, one.module_path) for one in report.outside if "cumsum" in one.operator] == [
        ("aten.cumsum.default", "block.odd")
    ]
    assert 0 < report.delegated_share < 1


@pytest.mark.parametrize("kind", ["determinant", "bessel"])
def test_an_operator_that_executorch_lacks_is_named(tmp_path: Path, kind: str) -> None:
    operator = {"determinant": r"aten\._linalg_det", "bessel": r"aten\.special_i0|aten\.i0|bessel"}[kind]
    with pytest.raises(match=rf"({operator}).*block\.odd"):
        export_executorch(capture(odd_net(kind)), tmp_path / "model.pte", card_json=CARD)
    assert list(tmp_path.iterdir()) == []


class Pooled(torch.nn.Module):
    """Poolings as people write them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.head = torch.nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(functional.relu(self.conv(x)), 2)
        return self.head(functional.avg_pool2d(x, 2).mean((2, -1)))


@pytest.mark.parametrize(("precision", "steps"), [("float", 0), ("int8", 1)])
def test_poolings_without_a_stride_and_means_are_delegated(tmp_path: Path, precision: str, steps: int) -> None:
    program = capture(Pooled().eval())
    program = quantized(program) if precision == "int8" else program
    report = export_executorch(program, tmp_path / "model.pte", card_json=CARD)
    assert report.outside == ()
    batch = images(2)
    with ExecuTorchPredictor(report.path, threads=1) as predictor:
        expected = outputs(program, batch).numpy()
        np.testing.assert_allclose(
            predictor.predict(batch.numpy())[0], expected, atol=1e-5 + steps * np.ptp(expected) / 255
        )


class Activated(torch.nn.Module):
    """A layer before an activation."""

    def __init__(self, activation: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3)
        self.second = torch.nn.Conv2d(8, CLASSES, 3)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.activation(self.first(x))).mean((2, 3))


@pytest.mark.parametrize("bounds", [(0.1, None), (-0.2, None), (None, 0.2), (0.1, 0.2)])
def test_float_clamps_of_any_bounds_run(tmp_path: Path, bounds: tuple[float | None, float | None]) -> None:
    torch.manual_seed(0)
    program = capture(Activated(lambda x: x.clamp(*bounds)).eval())
    report = export_executorch(program, tmp_path / "model.pte", card_json=CARD)
    batch = images(2)
    with ExecuTorchPredictor(report.path, threads=1) as predictor:
        np.testing.assert_allclose(predictor.predict(batch.numpy())[0], outputs(program, batch).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "delegated"),
    [
        (lambda x: x.clamp(0, 0.5), True),
        (lambda x: x.clamp(min=0), True),
        (lambda x: x.clamp(max=0.5), True),
        (lambda x: torch.cat([x, x.neg()], 1)[:, 4:12] + x, True),
        (lambda x: x.max(1, keepdim=True)[0] * x, False),
        (functional.softplus, False),  # in part
        (functional.mish, False),
    ],
)
def test_int8_activations_of_all_kinds_run(
    tmp_path: Path, activation: Callable[[torch.Tensor], torch.Tensor], delegated: bool
) -> None:
    torch.manual_seed(0)
    program = quantized(capture(Activated(activation).eval()))
    report = export_executorch(program, tmp_path / "model.pte", card_json=CARD)
    assert (report.outside == ()) is delegated
    batch = images(2)
    with ExecuTorchPredictor(report.path, threads=1) as predictor:
        expected = outputs(program, batch).numpy()
        np.testing.assert_allclose(
            predictor.predict(batch.numpy())[0], expected, atol=0.12 * np.ptp(expected)
        )  # a step of the output


def test_channels_last_weights_are_accepted(tmp_path: Path) -> None:
    program = capture(float_net().to(memory_format=torch.channels_last))
    report = export_executorch(program, tmp_path / "model.pte", card_json=CARD)
    batch = images(2)
    with ExecuTorchPredictor(report.path, threads=1) as predictor:
        np.testing.assert_allclose(predictor.predict(batch.numpy())[0], outputs(program, batch).numpy(), atol=1e-4)


def test_a_wrong_batch_or_file_is_explained(reports: dict[str, ExecuTorchReport], tmp_path: Path) -> None:
    predictor = ExecuTorchPredictor(reports["float"].path)
    with pytest.raises(ValueError, match="not float64"):
        predictor.predict(images(1).numpy().astype(np.float64))
    with pytest.raises(ValueError, match=r"\(3, 24, 24\).*not float32 \(3, 8, 8\)"):
        predictor.predict(np.zeros((1, 3, 8, 8), np.float32))
    broken = tmp_path / "broken.pte"
    broken.write_bytes(b"not a program")
    with pytest.raises(ValueError, match=r"broken\.pte"):
        ExecuTorchPredictor(broken)
    with pytest.raises(ValueError, match="max_batch is 0"):
        export_executorch(capture(odd_net("fft")), tmp_path / "model.pte", card_json=CARD, max_batch=0)


def test_nothing_is_printed_and_logging_is_as_before(
    programs: dict[str, ExportedProgram], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = logging.root.manager.disable
    report = export_executorch(programs["float"], tmp_path / "model.pte", card_json=CARD)
    ExecuTorchPredictor(report.path, threads=1).close()
    assert logging.root.manager.disable == before
    assert capfd.readouterr() == ("", "")


def test_the_predictor_does_not_import_the_exporter() -> None:
    code = "import sys, edgeopt_executorch.predictor; assert 'executorch.exir' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
