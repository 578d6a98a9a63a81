"""What makes the conversion faster changes no byte of the file, and nothing outside its block."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from litert_torch._convert import fx_passes
from litert_torch.backend.lowerings import registry
from small_programs import CLASSES, capture, float_net, quantized
from torch import Tensor, nn
from torch.export import ExportedProgram

from edgeopt_tflite import conversion_speed
from edgeopt_tflite import convert as conversion


def test_an_int8_file_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    program = quantized(capture(float_net()))
    quick = conversion.convert(program)
    monkeypatch.setattr(conversion, "quick_conversion", nullcontext)
    assert conversion.convert(program) == quick


def test_nothing_is_changed_outside_the_block() -> None:
    lowerings = registry.global_registry.registered_ops
    before = dict(lowerings)
    walk = fx_passes.CanonicalizePass.call
    with conversion_speed.quick_conversion():
        assert lowerings[torch.ops.aten.permute.default] is not before[torch.ops.aten.permute.default]
        assert fx_passes.CanonicalizePass.call is not walk
    assert lowerings == before
    assert fx_passes.CanonicalizePass.call is walk


class Sized(nn.Module):
    """Operators whose conversion looks at the sizes of their tensors, and one that has a layout of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.GroupNorm(2, 8)
        self.head = nn.Conv2d(8, CLASSES, 1)

    def forward(self, batch: Tensor) -> Tensor:
        x = nn.functional.gelu(self.norm(self.stem(batch)))
        x = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")
        x = nn.functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        return self.head(nn.functional.max_pool2d(x, 2)).mean((2, 3))


class Plain(nn.Module):
    """Convolutions and what stands between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.middle = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, batch: Tensor) -> Tensor:
        x = nn.functional.hardswish(self.stem(batch))
        x = torch.cat([self.up(x), self.up(nn.functional.gelu(self.middle(x)))], 1)
        return self.head((x - x.mean((2, 3), keepdim=True)).amax((2, 3)).clamp(-1, 1))


@pytest.mark.parametrize(("net", "walks"), [(Plain(), 0), (Sized(), 1)])
def test_a_walk_is_left_out_where_nothing_looks_at_sizes(
    monkeypatch: pytest.MonkeyPatch, net: nn.Module, walks: int
) -> None:
    program = capture(net.eval())
    walked = []
    walk = fx_passes.CanonicalizePass.call

    def noted(self: object, given: ExportedProgram) -> object:
        walked.append(given)
        return walk(self, given)

    monkeypatch.setattr(fx_passes.CanonicalizePass, "call", noted)
    quick = conversion.convert(program)
    assert len(walked) == walks
    monkeypatch.setattr(conversion, "quick_conversion", nullcontext)
    assert conversion.convert(program) == quick
