"""Whose costs precision "auto" goes by: recorded, measured here, or those of a file, and what stands in the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeopt.errors import UserError
from edgeopt.plugins import Bits, Numerics
from edgeopt_onnx.auto import chosen, measure
from edgeopt_onnx.auto.chosen import choose
from edgeopt_onnx.auto.costs import X86_VNNI, Costs, OperatorCost, read_costs
from edgeopt_onnx.auto.processor import Processor, described
from edgeopt_onnx.options import OnnxOptions, check
from edgeopt_onnx.plugin import fingerprint

XEON = Processor("x86_64", "Xeon", frozenset({"avx2", "avx512_vnni"}))
LAPTOP = Processor("x86_64", "Laptop", frozenset({"avx2"}))
BOARD = Processor("aarch64", "Board")
OTHER = Costs(
    "x86_64", "Laptop", "onnxruntime 1", {**X86_VNNI.kinds, "clip": (OperatorCost(1, 2.5), OperatorCost(3, 0))}
)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Lets a test be on a given processor, and counts what is measured there."""
    counted: list[Processor] = []

    def measured(processor: Processor) -> Costs:
        counted.append(processor)
        return OTHER

    def be_on(processor: Processor) -> list[Processor]:
        monkeypatch.setattr(chosen, "this_processor", lambda: processor)
        return counted

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(measure, "measured", measured)
    return be_on


def test_a_processor_is_told_from_others_by_what_linux_says_of_it() -> None:
    text = "processor : 0\nmodel name : Xeon Gold\nflags : fpu avx512_vnni\n\nprocessor : 1\nmodel name : other\n"
    processor = described("x86_64", text)
    assert (processor.model, processor.has_avx512_vnni) == ("Xeon Gold", True)
    board = described("aarch64", "CPU implementer : 0x41\nCPU part : 0xd0b\nFeatures : asimddp\n")
    assert (board.model, board.has_avx512_vnni) == ("0x41 0xd0b", False)
    assert len({processor.key, board.key, described("x86_64", text.replace("avx512_vnni", "avx2")).key}) == 3


def test_the_default_goes_by_the_processor(on) -> None:
    on(XEON)
    assert choose(None, "x86").costs() == X86_VNNI
    counted = on(LAPTOP)
    assert choose(None, "x86").costs() == OTHER
    assert choose(None, "x86").costs() == OTHER
    assert counted == [LAPTOP], "measured once, and kept"
    assert choose("measured", "x86").source == choose(None, "x86").source == "measured"
    assert choose("x86-vnni", "x86").costs() == X86_VNNI
    on(XEON)
    assert choose("measured", "x86").costs() == OTHER
    assert counted == [LAPTOP, XEON]


def test_the_key_of_a_file_holds_the_costs_that_were_used(on, tmp_path: Path) -> None:
    def key(costs: str | None = None) -> str:
        return fingerprint(OnnxOptions(precision="auto", costs=costs))

    file = tmp_path / "costs.toml"
    file.write_text(OTHER.to_toml())
    counted = on(XEON)
    assert key() == key("x86-vnni")
    here, of_file = key("measured"), key(str(file))
    file.write_text(X86_VNNI.to_toml())
    assert key(str(file)) == key("x86-vnni") != of_file
    on(LAPTOP)
    assert key() == key("measured") != here
    assert not counted, "a key measures nothing"
    assert fingerprint(OnnxOptions()) == ""


def test_costs_of_another_architecture_are_refused_and_a_file_lets_the_target_have_them(on, tmp_path: Path) -> None:
    on(XEON)
    for costs in (None, "measured", "x86-vnni"):
        with pytest.raises(UserError, match="architecture 'x86_64', and the target is 'arm'") as caught:
            choose(costs, "arm")
        assert caught.value.problems[0].option == "costs"
        assert "auto.measure FILE" in str(caught.value.problems[0].hint)
    file = tmp_path / "board.toml"
    file.write_text(Costs("aarch64", "Board", "onnxruntime 1", OTHER.kinds).to_toml())
    assert choose(str(file), "arm").costs().processor == "Board"
    with pytest.raises(UserError, match="'aarch64', and the target is 'x86'"):
        choose(str(file), "x86")
    on(BOARD)
    assert choose(None, "arm").costs() == OTHER


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "costs.toml"
    file.write_text(X86_VNNI.to_toml())
    assert read_costs(file) == X86_VNNI


def test_every_mistake_in_a_file_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "costs.toml"
    text = X86_VNNI.to_toml()
    broken = text.replace("[costs.dense]", "[costs.dence]").replace("[costs.dense.", "[costs.dence.")
    broken = broken.replace("runtime =", "runtimes =")
    pool = X86_VNNI.kinds["pool"][0]
    broken = broken.replace(f"call_ns = {pool.call}\n", 'call_ns = "much"\n')
    broken = broken.replace(f"unit_ns = {pool.unit}\n", "unit_ns = -1.0\n")
    file.write_text(broken)
    with pytest.raises(UserError) as caught:
        read_costs(file)
    found = {problem.message.removeprefix("costs: "): problem for problem in caught.value.problems}
    for message in (
        "unknown key 'runtimes'",
        "runtime is missing or is no text",
        "unknown kind of operator 'dence'",
        "there are no costs of 'dense'",
        "call_ns of 'pool' in float32 is 'much', and no number of 0 or more",
        "unit_ns of 'pool' in float32 is -1.0, and no number of 0 or more",
    ):
        problem = found.pop(message)
        assert problem.location is not None
        assert problem.location.file == str(file)
        if message.startswith(("unknown", "call_ns", "unit_ns")):
            name = message.split("'")[1] if message.startswith("unknown") else message.split()[0]
            assert name in broken.splitlines()[(problem.location.line or 0) - 1]
    assert not found
    assert {problem.option for problem in caught.value.problems} == {"costs"}

    file.write_text("architecture = x86\n")
    with pytest.raises(UserError, match=r"costs.toml:1: .*not TOML"):
        read_costs(file)
    with pytest.raises(UserError, match=r"nowhere.toml cannot be read"):
        read_costs(tmp_path / "nowhere.toml")


def test_costs_without_auto_are_refused() -> None:
    problems = list(check(OnnxOptions(costs="measured"), Numerics((), "torch", Bits())))
    assert [problem.option for problem in problems] == ["costs"]


def test_the_command_writes_a_file_that_is_read(
    on, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on(XEON)
    assert measure.main([str(tmp_path / "mine.toml")]) == 0
    assert read_costs(tmp_path / "mine.toml") == OTHER
    assert measure.main([]) == 2
    assert "usage" in capsys.readouterr().err


def test_an_operator_is_really_measured() -> None:
    """One kind, two sizes: the whole table takes a minute."""
    graph = measure.Graph(16, 8, int8=True)
    assert graph.convolution(16) == 16 * 16 * 8 * 8
    assert measure._of_convolution(graph) > 0
