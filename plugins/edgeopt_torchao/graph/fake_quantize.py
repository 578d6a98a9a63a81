"""A fake quantizer for training that rounds exactly as the converted program will, and that `torch.compile` takes.

torchao's `FusedMovingAvgObsFakeQuantize` computes its scale in a kernel with rules of its own: no lower bound `eps`,
and symmetric ranges stretched to 255 steps. `convert_pt2e` asks the observer instead. So a model trains with one scale
and ships with another, up to many times coarser where the observer's `eps` binds. `FakeQuantizer` has one scale: the
observer's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torchao.quantization.pt2e import (
    FakeQuantize,
    FakeQuantizeBase,
    FixedQParamsFakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    ObserverBase,
)

from edgeopt.plugins import PluginError
from edgeopt_lightning.fit.devices import range_over_devices

SYMMETRIC = (torch.per_tensor_symmetric, torch.per_channel_symmetric)
_AFFINE = (torch.per_tensor_affine, torch.per_channel_affine)
MovedRange: TypeAlias = Callable[[Tensor, Tensor, ObserverBase], tuple[Tensor, Tensor]]


class FakeQuantizer(FakeQuantize):  # type: ignore[misc]  # torchao ships no types
    """Observe a tensor's range while training, and round the tensor to the integers of that range.

    `observer` is the torchao observer whose range and `calculate_qparams` conversion reads later. `channels` is the
    length of the tensor's channel axis. Observing happens in training mode only, so that evaluation never moves a
    range. `moved_range` may give another range for what a batch shows.

    The gradient passes where the rounded value is inside the range, and is zero where it was clamped.
    """

    def __init__(self, observer: ObserverBase, channels: int) -> None:
        super().__init__(observer=lambda **_: observer)
        self.observing = True
        self.quantizing = True
        self.moved_range: MovedRange | None = None
        self.channel_axis = max(self.ch_axis, 0)  # of a weight's output channels, where all of them share one scale too
        if self.is_per_channel and observer.min_val.numel() == 0:
            observer.min_val.resize_(channels).fill_(float("inf"))
            observer.max_val.resize_(channels).fill_(float("-inf"))
        length = channels if self.is_per_channel else 1
        self.scale = torch.ones(length, device=observer.min_val.device)
        self.zero_point = torch.zeros(length, dtype=torch.int32, device=observer.min_val.device)

    def enable_observer(self, enabled: bool = True) -> None:
        super().enable_observer(enabled)
        self.observing = bool(enabled)  # a Python value, so that compiled code does not branch on a tensor

    def enable_fake_quant(self, enabled: bool = True) -> None:
        super().enable_fake_quant(enabled)
        self.quantizing = bool(enabled)

    def forward(self, input: Tensor, channel_scale: Tensor | None = None) -> Tensor:
        """`input` rounded to its integer grid, same shape and dtype.

        With `channel_scale`, float32 (channels,), what is observed and rounded is `input * channel_scale`, and the
        result is divided by it again: the weight that a folded BatchNorm would give, in the units of the unfolded one.
        """
        if self.training and self.observing:
            self._observe(input.detach(), channel_scale)
        if not self.quantizing:
            return input
        low, high = self.activation_post_process.quant_min, self.activation_post_process.quant_max
        scale, zero_point, axis = self.scale, self.zero_point, self.ch_axis
        if channel_scale is not None:
            # round(w * c / s) * s / c is rounding w with the scale s / c: one kernel, and no product with the weight.
            scale = scale / channel_scale
            zero_point = zero_point.expand_as(scale)
            axis = self.channel_axis
        if torch.compiler.is_compiling():
            return _round_in_plain_operators(input, scale, zero_point, axis, low, high)
        whole = scale.numel() == 1 and channel_scale is None
        if input.device.type == "cpu" and whole:
            return applied(_RoundOnCpu, input, scale.item(), (1.0 / scale).item(), low, high, zero_point.item())
        if input.device.type == "cpu" and self.qscheme in SYMMETRIC:  # their zero point is 0
            scale = along(scale, axis, input.dim())
            return applied(_RoundOnCpu, input, scale, 1.0 / scale, low, high, 0)
        if not whole or self.is_per_channel:
            return torch.fake_quantize_per_channel_affine(input, scale, zero_point, axis, low, high)
        return torch.fake_quantize_per_tensor_affine(input, scale, zero_point, low, high)

    @torch.no_grad()
    def _observe(self, input: Tensor, channel_scale: Tensor | None) -> None:
        observer = self.activation_post_process
        low, high = self._range(input, channel_scale)
        step = observer.averaging_constant
        if step != 1:
            low, high = range_over_devices(low, high)  # each sees a part of the batch; a weight is whole everywhere
            if self.moved_range is not None:
                low, high = self.moved_range(low, high, observer)
            first = torch.isinf(observer.min_val)  # nothing was seen yet
            low = torch.where(first, low, torch.lerp(observer.min_val, low, step))
            high = torch.where(first, high, torch.lerp(observer.max_val, high, step))
        observer.min_val.copy_(low)
        observer.max_val.copy_(high)
        scale, zero_point = quantization_parameters(low, high, observer)
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)

    def _range(self, input: Tensor, channel_scale: Tensor | None) -> tuple[Tensor, Tensor]:
        if not self.is_per_channel and channel_scale is None:
            if input.dim() == 4 and input.is_contiguous(memory_format=torch.channels_last):
                return torch.aminmax(input.permute(0, 2, 3, 1))  # it copies whatever is not contiguous
            return torch.aminmax(input)
        low, high = torch.aminmax(input.movedim(self.channel_axis, 0).flatten(1), dim=1)
        if channel_scale is not None:
            low, high = low * channel_scale, high * channel_scale
            low, high = torch.minimum(low, high), torch.maximum(low, high)  # a negative scale swaps them
        return (low, high) if self.is_per_channel else (low.amin(), high.amax())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: object) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.observing = bool(self.observer_enabled[0])
        self.quantizing = bool(self.fake_quant_enabled[0])


def quantization_parameters(low: Tensor, high: Tensor, observer: ObserverBase) -> tuple[Tensor, Tensor]:
    """Scale (float32) and zero point (int32) of the range `low`..`high`, as `observer.calculate_qparams` gives them.

    The observer's own method looks at values to warn about them, which stops a compiled graph.
    """
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    steps = float(observer.quant_max - observer.quant_min)
    if observer.qscheme in SYMMETRIC:
        scale = torch.maximum(torch.maximum(-low, high) / (steps / 2), observer.eps)
        return scale, torch.zeros_like(scale, dtype=torch.int32)
    scale = torch.maximum((high - low) / steps, observer.eps)
    zero_point = observer.quant_min - torch.round(low / scale).to(torch.int32)
    return scale, zero_point.clamp(observer.quant_min, observer.quant_max)


def replace_fake_quantizers(graph_module: GraphModule) -> int:
    """Replace torchao's trainable fake quantizers in a prepared graph by `FakeQuantizer`; returns how many.

    Names, observers and the state dict's keys stay. A fake quantizer that several nodes share stays shared.

    Raises `PluginError` for one that is dynamic, or observes other than by a moving minimum and maximum.
    """
    replaced: dict[int, FakeQuantizer] = {}
    for node in graph_module.graph.nodes:
        if node.op != "call_module":
            continue
        module = graph_module.get_submodule(node.target)
        if isinstance(module, (FakeQuantizer, FixedQParamsFakeQuantize)) or not isinstance(module, FakeQuantizeBase):
            continue
        if id(module) not in replaced:
            _require_supported(module, node.target)
            source = node.args[0]
            while "val" not in source.meta:  # what is rounded twice comes from another fake quantizer
                source = source.args[0]
            shape = source.meta["val"].shape
            replaced[id(module)] = FakeQuantizer(
                module.activation_post_process, shape[max(cast("int", module.ch_axis), 0)]
            )
        graph_module.set_submodule(node.target, replaced[id(module)])
    return len(replaced)


def _require_supported(module: FakeQuantizeBase, name: str) -> None:
    observer = getattr(module, "activation_post_process", None)
    if (
        isinstance(observer, MovingAverageMinMaxObserver | MovingAveragePerChannelMinMaxObserver)
        and not observer.is_dynamic
        and observer.qscheme in SYMMETRIC + _AFFINE
    ):
        return
    raise PluginError(
        f"{name} is a {type(module).__name__} with {type(observer).__name__}, which cannot be trained here",
        hint="use a quantizer whose training configuration is static and observes a moving minimum and maximum",
    )


def fake_quantizers(module: nn.Module) -> list[FakeQuantizeBase]:
    """The fake quantizers in `module`, each once."""
    return [child for child in module.modules() if isinstance(child, FakeQuantizeBase)]


def _round_in_plain_operators(
    input: Tensor, scale: Tensor, zero_point: Tensor, axis: int, low: int, high: int
) -> Tensor:
    """The rounding and gradient of torch's kernels, in operators that a compiler can fuse with their neighbours."""
    if scale.numel() > 1:
        scale, zero_point = along(scale, axis, input.dim()), along(zero_point, axis, input.dim())
    return applied(_Round, input, scale, zero_point, low, high)


def applied(function: type[torch.autograd.Function], *arguments: Tensor | float) -> Tensor:
    """What a function with a gradient of its own gives."""
    return cast("Tensor", function.apply(*arguments))  # type: ignore[no-untyped-call]  # torch gives it no types


def along(values: Tensor, axis: int, dimensions: int) -> Tensor:
    """`values`, one for each index of `axis`, shaped to broadcast over a tensor of so many dimensions."""
    return values.view([-1 if dimension == axis else 1 for dimension in range(dimensions)])


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        integer = torch.round(input * (1.0 / scale) + zero_point)
        ctx.save_for_backward((integer >= low) & (integer <= high))
        return (integer.clamp(low, high) - zero_point) * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None, None


class _RoundOnCpu(torch.autograd.Function):
    """Rounding in vectorized operators: a third of the time of torch's own kernels, which go value by value.

    One scale for the whole tensor comes as a Python number, which is free on a CPU and would stall any other device.
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, scale: Tensor | float, inverse: Tensor | float, low: int, high: int, zero: int
    ) -> Tensor:
        steps = (input * inverse).round_()
        # Not the input, which the model may change in place after this.
        ctx.save_for_backward(steps)
        ctx.limits = low - zero, high - zero
        return steps.clamp(*ctx.limits).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (steps,) = ctx.saved_tensors
        low, high = ctx.limits
        # This operator is zero at the limits themselves, which are inside: half a step further is the same.
        inside = torch.ops.aten.hardtanh_backward(gradient, steps, low - 0.5, high + 0.5)
        return inside, None, None, None, None, None
