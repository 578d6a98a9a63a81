"""What makes the conversion faster changes no byte of the file, and nothing outside its block."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from litert_torch.backend.lowerings import registry
from small_programs import capture, float_net, quantized

from edgeopt_tflite import conversion_speed
from edgeopt_tflite import convert as conversion


@pytest.mark.parametrize("is_quantized", [False, True])
def test_the_file_is_the_same(monkeypatch: pytest.MonkeyPatch, is_quantized: bool) -> None:
    program = capture(float_net())
    program = quantized(program) if is_quantized else program
    quick = conversion.convert(program)
    monkeypatch.setattr(conversion, "quick_conversion", nullcontext)
    assert conversion.convert(program) == quick


def test_nothing_is_changed_outside_the_block() -> None:
    lowerings = registry.global_registry.registered_ops
    before = dict(lowerings)
    with conversion_speed.quick_conversion():
        assert lowerings[torch.ops.aten.permute.default] is not before[torch.ops.aten.permute.default]
    assert lowerings == before
