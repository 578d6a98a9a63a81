"""The Python of a graph is written when somebody runs or reads it."""

from __future__ import annotations

import pytest
import torch
from torch.fx import GraphModule, symbolic_trace

from edgeopt.networks.deferred_code import deferred_code


def test_deferred_code_is_written_when_it_is_run_or_read() -> None:
    batch = torch.randn(2, 3, 4, 4)
    with deferred_code():
        module = symbolic_trace(torch.nn.Sequential(torch.nn.ReLU()))
        (call,) = (node for node in module.graph.nodes if node.op == "call_module")
        assert torch.equal(module(batch), batch.relu())
        with module.graph.inserting_after(call):
            doubled = module.graph.call_function(torch.add, (call, call))
        call.replace_all_uses_with(doubled, delete_user_cb=lambda user: user is not doubled)
        module.recompile()
        assert "torch.add" in module.code
        assert torch.equal(module(batch), 2 * batch.relu())
        module.recompile()
    assert torch.equal(module(batch), 2 * batch.relu())  # left over from the block, and not yet written again
    assert "torch.add" in module.code


def test_only_within_the_block() -> None:
    before = GraphModule.recompile
    with deferred_code():
        assert GraphModule.recompile is not before
    assert GraphModule.recompile is before


def test_a_torch_without_the_method_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(GraphModule, "recompile")
    with deferred_code():
        assert not hasattr(GraphModule, "recompile")
