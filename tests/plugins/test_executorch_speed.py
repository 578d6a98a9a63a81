"""What makes lowering faster changes no byte of the file, and nothing outside its block."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from executorch.backends.xnnpack import _passes
from executorch.exir import pass_base, pass_manager
from executorch.exir.pass_base import ExportPass
from small_programs import CLASSES, SIZE, capture, float_net, images, outputs, quantized
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule

from edgeopt_executorch import lowering, lowering_speed
from edgeopt_executorch.lowering import export_executorch
from edgeopt_executorch.predictor import ExecuTorchPredictor

CARD = '{"classes": ["käse", "b"]}'
ALONE = ("known_values", "known_graphs", "one_check")


class Attention(torch.nn.Module):
    """Resizing, padding, a channel shuffle, and attention, so that every one of XNNPACK's passes has work."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.slope = torch.nn.PReLU(8)
        self.mix = torch.nn.Linear(8, 24)
        self.head = torch.nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.slope(self.norm(torch.nn.functional.pad(self.stem(x), (0, 1, 0, 1))))
        x = torch.cat([x[:, ::2], x[:, 1::2].relu()], 1)
        x = torch.nn.functional.interpolate(x, size=(4, 4), mode="bilinear", align_corners=False)
        query, key, value = self.mix(x.flatten(2).transpose(1, 2)).chunk(3, -1)
        return self.head(torch.nn.functional.scaled_dot_product_attention(query, key, value).mean(1))


WIDE = 128


class Twice(torch.nn.Module):
    """A large layer that is used on both sides of an operator that XNNPACK does not take."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, WIDE, 3, 4)
        self.layer = torch.nn.Linear(WIDE, WIDE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(self.stem(x).mean((2, 3)))
        return self.layer(x.cumsum(1))[:, :CLASSES]


@pytest.fixture(scope="module")
def programs() -> dict[str, ExportedProgram]:
    torch.manual_seed(0)
    program = capture(float_net())
    return {"float": program, "int8": quantized(program), "attention": capture(Attention().eval())}


@pytest.fixture(scope="module")
def plain_bytes(programs: dict[str, ExportedProgram]) -> Callable[[str, Path, int], bytes]:
    made: dict[tuple[str, int], bytes] = {}

    def make(name: str, folder: Path, max_batch: int) -> bytes:
        if (name, max_batch) not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(lowering, "quick_lowering", lambda _graph: nullcontext())
                made[name, max_batch] = lowered(programs[name], folder, max_batch)
        return made[name, max_batch]

    return make


def lowered(program: ExportedProgram, folder: Path, max_batch: int = 1) -> bytes:
    export_executorch(program, folder / "model.pte", card_json=CARD, max_batch=max_batch)
    return (folder / "model.pte").read_bytes()


@pytest.mark.parametrize(
    ("name", "max_batch"), [("float", 1), ("float", 4), ("int8", 1), ("int8", 4), ("attention", 1)]
)
def test_the_file_is_the_same(
    programs: dict[str, ExportedProgram],
    plain_bytes: Callable[[str, Path, int], bytes],
    tmp_path: Path,
    name: str,
    max_batch: int,
) -> None:
    assert lowered(programs[name], tmp_path, max_batch) == plain_bytes(name, tmp_path, max_batch)


@pytest.mark.parametrize("part", ALONE)
def test_each_part_alone_gives_the_same_file(
    programs: dict[str, ExportedProgram],
    plain_bytes: Callable[[str, Path, int], bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    def only(_graph: Graph) -> AbstractContextManager[None]:
        return getattr(lowering_speed, part)()

    monkeypatch.setattr(lowering, "quick_lowering", only)
    assert lowered(programs["int8"], tmp_path) == plain_bytes("int8", tmp_path, 1)


def test_nothing_is_changed_outside_the_block() -> None:
    def doors() -> list[object]:
        base = pass_base._ExportPassBase
        checked = pass_manager.ExportedProgramPassManager
        return [base._fx, ExportPass.call_submodule, checked.check, _passes.XNNPACKPassManager]

    before = doors()
    with lowering_speed.quick_lowering(Graph()):
        assert doors() != before
    assert doors() == before


@pytest.mark.parametrize(
    ("owner", "name", "part"),
    [
        (pass_base._ExportPassBase, "_fx", "known_values"),
        (pass_base, "_ExportPassBase", "known_values"),
        (_passes.XNNPACKPassManager, "transform", "one_check"),
        (_passes, "XNNPACKPassManager", "one_check"),
    ],
)
def test_a_version_without_the_attribute_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, part: str
) -> None:
    monkeypatch.delattr(owner, name)
    with getattr(lowering_speed, part)():
        assert not hasattr(owner, name)


class Shrink(ExportPass):
    """Changes a graph before the walk: the mean over other dimensions."""

    def call(self, graph_module: GraphModule) -> pass_base.PassResult:
        for node in graph_module.graph.nodes:
            if "mean" in str(node.target):
                node.args = (node.args[0], [2], *node.args[2:])
        return super().call(graph_module)


def test_a_graph_that_changed_since_its_last_walk_gets_new_shapes() -> None:
    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean([3], False)

    @contextmanager
    def both():
        with lowering_speed.known_graphs(), lowering_speed.known_values():
            yield

    module = torch.export.export(Mean(), (torch.zeros(1, 3, SIZE, SIZE + 1),)).graph_module
    with both():
        walked = ExportPass()(module).graph_module
        assert ExportPass()(walked).graph_module is walked
        shrunk = Shrink()(walked).graph_module
    assert shrunk is not walked
    (mean,) = (node for node in shrunk.graph.nodes if "mean" in str(node.target))
    assert mean.meta["val"].shape == (1, 3, SIZE + 1)


def test_small_constants_stand_in_the_delegate_and_answers_stay_to_the_bit(
    programs: dict[str, ExportedProgram], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = images(3).numpy()
    within = export_executorch(programs["int8"], tmp_path / "within.pte", card_json=CARD)
    monkeypatch.setattr(lowering, "small_constants_within", nullcontext)
    named = export_executorch(programs["int8"], tmp_path / "named.pte", card_json=CARD)
    assert within.size_bytes < 0.8 * named.size_bytes
    answers = []
    for report in (within, named):
        with ExecuTorchPredictor(report.path, threads=1) as predictor:
            answers.append(predictor.predict(batch)[0].tobytes())
    assert answers[0] == answers[1]


def test_small_constants_that_are_read_when_the_network_runs_outlive_the_delegates_bytes(tmp_path: Path) -> None:
    class Constants(torch.nn.Module):
        """A slope, a factor and an addend for each channel, which XNNPACK does not copy, between layers that it packs."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = torch.nn.Conv2d(3, 40, 3), torch.nn.Conv2d(40, 5, 1)
            self.slopes = torch.nn.PReLU(40)
            self.register_buffer("factor", torch.linspace(0.5, 2, 40)[:, None, None])
            self.register_buffer("addend", torch.linspace(-1, 1, 40)[:, None, None])
            torch.nn.init.uniform_(self.slopes.weight, -1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.slopes(self.first(x)) * self.factor + self.addend).mean((2, 3))

    torch.manual_seed(0)
    program = capture(Constants().eval())
    for name, each in (("float", program), ("int8", quantized(program))):
        report = export_executorch(each, tmp_path / f"{name}.pte", card_json=CARD)
        assert report.partitions == 1
        with ExecuTorchPredictor(report.path, threads=1) as predictor:
            reused = [bytes(size) for size in range(64, 1 << 17, 640)]  # what was freed is written over
            expected = outputs(each, images(3)).numpy()
            found = predictor.predict(images(3).numpy())[0]
            assert np.abs(found - expected).max() <= 0.02 * np.ptp(expected)
            assert len(reused) > 200


def test_a_large_constant_of_two_delegates_is_held_once(tmp_path: Path) -> None:
    content = capture(Twice().eval())
    report = export_executorch(content, tmp_path / "twice.pte", card_json=CARD)
    assert report.partitions == 2
    assert report.size_bytes < 1.5 * 4 * WIDE * WIDE
