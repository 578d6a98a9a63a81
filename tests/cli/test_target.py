"""`edgeopt check --target`: what an accelerator takes of a recipe's files, before anything is trained."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from edgeopt.cli.targets import sentence
from edgeopt.plugins import Accelerator, AcceleratorAnswer, AskedOperator, PluginError, Verdict, registry
from edgeopt.targets import run
from edgeopt.targets.asked import reasons_of, rows_of
from edgeopt.testing.accelerators import require_told

pytestmark = pytest.mark.usefixtures("imports_done_once")


def test_each_operator_gets_a_verdict_and_the_answer_is_kept(
    cli, tiny_recipe, tiny_plugin_file, tmp_path, monkeypatch
) -> None:
    command = ("check", tiny_recipe, "--plugin", tiny_plugin_file, "--target", "tiny-npu")
    result = cli(*command)
    assert result.exit_code == 0, result.stderr
    assert "npz on tiny-npu" in result.stdout
    assert [row.split() for row in result.stdout.splitlines() if row.startswith(("product", "sum"))] == [
        ["product", "1"],
        ["sum", "1"],
    ]
    assert "1 sum: it has no adder (linear)\n" in result.stdout
    assert "1 of 2 operators run there, in 1 island. Asked: its makers." in result.stdout
    assert not list((tmp_path / "runs").rglob("model.npz")), "the file that was asked about is nobody's"
    monkeypatch.setattr(run, "_work", lambda *_: pytest.fail("the answer is in the store"))
    again = cli(*command)
    assert (again.exit_code, again.stdout) == (0, result.stdout)


def test_what_is_refused_is_told_with_its_line(cli, tiny_recipe, tiny_plugin_file) -> None:
    command = ("check", tiny_recipe, "--plugin", tiny_plugin_file, "--target", "tiny-npu", "--set")
    line = tiny_recipe.read_text().splitlines().index("[[exports]]") + 1
    operator = cli(*command, "exports.0.takes=2")
    assert operator.exit_code == 2
    assert "1 sum: it has no adder" in operator.stdout
    assert "recipe.toml" in operator.stderr and f":{line}" in operator.stderr
    assert "tiny-npu refuses npz: sum: it has no adder" in operator.stderr
    whole = cli(*command, "exports.0.fail=user")
    assert whole.exit_code == 2
    assert "refused: operator 'frobnicate' is unknown (leave it out)" in whole.stdout
    assert "tiny-npu refuses npz: operator 'frobnicate' is unknown" in whole.stderr


def test_an_exporter_that_the_recipe_does_not_use_is_asked_as_it_comes(cli, tiny_recipe, tiny_plugin_file) -> None:
    command = ("check", tiny_recipe, "--plugin", tiny_plugin_file, "--set", "exports.0.use=onnx")
    result = cli(*command, "--target", "tiny-npu")
    assert result.exit_code == 0, result.stderr
    assert "npz on tiny-npu, which the recipe does not ask for, with its own defaults" in result.stdout


def test_an_unknown_target_gets_the_list_and_a_hint(cli, tiny_recipe, tiny_plugin_file) -> None:
    result = cli("check", tiny_recipe, "--plugin", tiny_plugin_file, "--target", "ethosu")
    assert result.exit_code == 2
    assert "--target ethosu: there is no such target" in result.stderr
    assert "did you mean 'ethos-u'? known: coreml, edgetpu, ethos-u, qnn, tiny-npu, vulkan" in result.stderr
    far = cli("check", tiny_recipe, "--plugin", tiny_plugin_file, "--target", "x")
    assert far.stderr.count("known: coreml") == 1


def test_what_is_asked_must_be_installed(cli, tiny_recipe, tiny_plugin_file, monkeypatch) -> None:
    own = registry.installed_version
    monkeypatch.setattr(registry, "installed_version", lambda name: None if "vela" in name else own(name))
    result = cli("check", tiny_recipe, "--plugin", tiny_plugin_file, "--target", "ethos-u")
    assert result.exit_code == 2
    assert "target 'ethos-u' needs ethos-u-vela, which is not installed" in result.stderr
    assert "pip install 'edgeopt[ethos-u]'" in result.stderr
    with pytest.raises(PluginError, match="does not say how"):
        Accelerator("npu", "One.", lambda request: None, requires=("tool",))


def test_operators_are_counted_by_kind_and_reasons_by_place() -> None:
    falls = [AskedOperator("swish", Verdict.FALLS_BACK, "no table", f"block.{index}") for index in range(4)]
    refused = AskedOperator("swish", Verdict.REFUSED, "no kernel")
    runs = AskedOperator("conv", Verdict.RUNS, place="stem")
    answer = AcceleratorAnswer((runs, *falls, runs, refused), 2, "a table")
    assert [(row.kind, *row.counts.values()) for row in rows_of(answer)] == [("conv", 2, 0, 0), ("swish", 0, 4, 1)]
    assert reasons_of(answer) == ["4 swish: no table (block.0, block.1, block.2, …)", "1 swish: no kernel"]
    assert sentence(answer) == (
        "2 of 7 operators run there, in 2 islands: between them data goes to the CPU and back once. Asked: a table."
    )
    assert "in 0 islands. " in sentence(AcceleratorAnswer((refused,), 0, "a table"))


RUNS, FALLS = AskedOperator("conv", Verdict.RUNS), AskedOperator("swish", Verdict.FALLS_BACK, "no table")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (AcceleratorAnswer((RUNS, FALLS), 1, "a table"), ""),
        (AcceleratorAnswer((FALLS,), 0, "a table"), ""),
        (AcceleratorAnswer((RUNS,), 1, ""), "does not say who was asked"),
        (AcceleratorAnswer((), 0, "a table"), "says nothing of any operator"),
        (AcceleratorAnswer((AskedOperator("", Verdict.RUNS),), 1, "a table"), "without a kind"),
        (AcceleratorAnswer((AskedOperator("conv", Verdict.REFUSED),), 0, "a table"), "only what stays away has one"),
        (
            AcceleratorAnswer((AskedOperator("conv", Verdict.RUNS, "why"),), 1, "a table"),
            "only what stays away has one",
        ),
        (AcceleratorAnswer((RUNS,), 0, "a table"), "1 operators run there, in 0 islands"),
        (AcceleratorAnswer((RUNS, FALLS), 2, "a table"), "1 operators run there, in 2 islands"),
    ],
)
def test_the_contract_finds_answers_that_tell_too_little(answer: AcceleratorAnswer, said: str) -> None:
    accelerator = Accelerator("npu", "One.", lambda request: answer)
    with pytest.raises(AssertionError, match=said) if said else nullcontext():
        require_told(accelerator, answer)


def test_targets_are_completed() -> None:
    from edgeopt.cli import complete

    assert complete.targets("e") == [("edgetpu", "Google's Coral."), ("ethos-u", "Arm's NPU for microcontrollers.")]
