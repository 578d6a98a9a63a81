"""What the accelerators of an exporter's files must keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeopt.errors import ExportError
from edgeopt.export.make import as_exported
from edgeopt.json_values import from_text, to_text
from edgeopt.plugins.accelerator import Accelerator, AcceleratorAnswer, AcceleratorRequest, AskedOperator, Verdict
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.registry import missing_requirements
from edgeopt.plugins.use import Use
from edgeopt.testing.contracts import PluginContract
from edgeopt.testing.states import state_digest
from edgeopt.types import ExportResult, ModelState


class AskedOfAccelerators(PluginContract):
    """The part of an exporter's contract that is about accelerators; `ExporterContract` has it."""

    def test_each_accelerator_gives_a_verdict_on_each_operator(
        self, use: Use[ExporterPlugin], state: ModelState, exported: tuple[Path, ExportResult]
    ) -> None:
        """With a reason for what does not run there, or it refuses the program as a whole, which it leaves alone."""
        able = [each for each in use.plugin.accelerators if not missing_requirements(each)]
        if not able:
            pytest.skip("it names no accelerator, or nobody who could be asked is installed")
        before = state_digest(state)
        given, _ = as_exported(use, state)
        for accelerator in able:
            try:
                answer = accelerator.ask(AcceleratorRequest(given, use.options, lambda: exported[0]))
            except ExportError as error:
                assert str(error), f"{accelerator.name} refuses the program and does not say why"
            else:
                require_told(accelerator, answer)
            assert state_digest(state) == before, f"{accelerator.name} changes the program that it is asked about"


def require_told(accelerator: Accelerator, answer: AcceleratorAnswer) -> None:
    """That an answer is one that `edgeopt check --target` can keep and show."""
    name = accelerator.name
    assert answer.source, f"{name} does not say who was asked"
    assert answer.operators, f"{name} says nothing of any operator"
    for each in answer.operators:
        assert isinstance(each, AskedOperator) and each.kind, f"{name} has an operator without a kind"
        is_told = bool(each.reason) != (each.verdict is Verdict.RUNS)
        assert is_told, (
            f"{name}: {each.kind} {each.verdict}, with the reason {each.reason!r}: only what stays away has one"
        )
    runs = sum(each.verdict is Verdict.RUNS for each in answer.operators)
    assert min(runs, 1) <= answer.islands <= runs, f"{name}: {runs} operators run there, in {answer.islands} islands"
    assert from_text(AcceleratorAnswer, to_text(answer)) == answer, f"{name}: its answer cannot be kept"
