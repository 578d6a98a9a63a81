"""Learned step sizes: with few bits, the distance between two integers is trained like a weight.

S. Esser et al., "Learned step size quantization", ICLR 2020, https://arxiv.org/abs/1902.08153. What is trained is the
logarithm of the step, so that an optimizer which moves every parameter by its learning rate moves each step by a share
of itself (S. Jain et al., "Trained quantization thresholds", 2020, https://arxiv.org/abs/1903.08066). Zero points stay
where the first range put them.

Weights that train with rounding jump between two integers again and again, and what BatchNorm knows of them is then
wrong (M. Nagel et al., "Overcoming oscillations in quantization-aware training", 2022,
https://arxiv.org/abs/2203.11086). `dampen` pulls them to the middle of their step, more and more towards the end, as
that paper's dampening does through the loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import FakeQuantize

from edgeopt.networks.bits import bits_between
from edgeopt.networks.tensors import named_tensor
from edgeopt_lightning.fit.devices import place
from edgeopt_torchao.bits.least_error_ranges import LeastErrorHistogramObserver, least_error_step
from edgeopt_torchao.graph.batch_norm import called_module, rounding_scale
from edgeopt_torchao.graph.fake_quantize import SYMMETRIC, FakeQuantizer, along, applied, fake_quantizers

LEARNED_UP_TO_BITS = 4
_BETWEEN = 0.1  # of a step from the border between two integers


class LearnedStep(FakeQuantize):  # type: ignore[misc]
    """Round a tensor to integers whose distance is a parameter.

    It takes the place of `quantizer` and keeps its observer, which says which integers there are; `settle` sets that
    observer's range before conversion. A weight's steps are in the units of the weight before a BatchNorm is folded
    into it; folding changes both.
    """

    def __init__(self, quantizer: FakeQuantizer, *, of_weight: bool) -> None:
        observer = quantizer.activation_post_process
        super().__init__(observer=lambda **_: observer)
        self.register_buffer("scale", quantizer.scale)
        self.register_buffer("zero_point", quantizer.zero_point)
        self.channel_axis = quantizer.channel_axis
        self.of_weight = of_weight
        self.log_step = nn.Parameter(torch.zeros_like(quantizer.scale))
        self.histogram: LeastErrorHistogramObserver | None = None

    def forward(self, input: Tensor, channel_scale: Tensor | None = None) -> Tensor:
        """`input` rounded, same shape and dtype; `channel_scale` as `FakeQuantizer` takes it."""
        if self.histogram is not None:
            return cast("Tensor", self.histogram(input.detach()))
        observer = self.activation_post_process
        step = self.log_step.exp()
        if channel_scale is not None and not self.is_per_channel:
            step = step / channel_scale.abs()
        parts = 1 if self.of_weight else place()[1]  # each device sees a part of an activation
        gradient_share = 1 / math.sqrt(parts * input.numel() / step.numel() * observer.quant_max)
        zero = int(self.zero_point[0])
        step = along(step, self.channel_axis, input.dim()) if step.numel() > 1 else step
        low, high = observer.quant_min - zero, observer.quant_max - zero
        return applied(_RoundToLearnedStep, input, step, low, high, gradient_share)

    @torch.no_grad()
    def start_from_weight(self, weight: Tensor, channel_scale: Tensor | None) -> None:
        """Start at the least error for `weight`, times `channel_scale` where all channels share one step."""
        if self.is_per_channel:
            rows = weight.movedim(self.channel_axis, 0).flatten(1)
        elif channel_scale is None:
            rows = weight.reshape(1, -1)
        else:
            rows = (weight * along(channel_scale, self.channel_axis, weight.dim())).reshape(1, -1)
        self._start(least_error_step(rows, self.activation_post_process.quant_max))

    @torch.no_grad()
    def start_from_histogram(self) -> None:
        """Start at the range with the least error for what was seen."""
        assert self.histogram is not None
        scale, zero_point = self.histogram.calculate_qparams()
        self.histogram = None
        self.zero_point.copy_(zero_point)
        self._start(scale)

    def _start(self, step: Tensor) -> None:
        self.log_step.copy_(step.clamp(min=self.activation_post_process.eps.item()).log())

    @torch.no_grad()
    def settle(self, channel_scale: Tensor | None) -> None:
        """Give the observer the range that makes conversion use the steps as they are now."""
        step = self.log_step.exp()
        if channel_scale is not None and self.is_per_channel:
            step = step * channel_scale.abs()
        observer = self.activation_post_process
        if observer.qscheme in SYMMETRIC:
            high = (observer.quant_max - observer.quant_min) / 2 * step
            low = -high
        else:
            low, high = (observer.quant_min - self.zero_point) * step, (observer.quant_max - self.zero_point) * step
        shape = step.shape if self.is_per_channel else ()
        observer.min_val = low.reshape(shape).clone()
        observer.max_val = high.reshape(shape).clone()


class _RoundToLearnedStep(torch.autograd.Function):
    """Rounding with the gradients of the paper's equations 3 and 5."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, step: Tensor, low: int, high: int, gradient_share: float) -> Tensor:
        steps = input / step
        ctx.save_for_backward(steps, step)
        ctx.limits, ctx.gradient_share = (low, high), gradient_share
        return steps.round().clamp_(low, high).mul_(step)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        steps, step = ctx.saved_tensors
        low, high = ctx.limits
        inside = (steps >= low) & (steps <= high)
        rounded = steps.round().clamp_(low, high)
        by_step = torch.where(inside, rounded - steps, rounded).mul_(gradient)
        over = [axis for axis in range(steps.dim()) if step.dim() != steps.dim() or step.shape[axis] == 1]
        gradient_of_step = by_step.sum(over, keepdim=step.dim() == steps.dim()).reshape(step.shape)
        return gradient * inside, gradient_of_step * ctx.gradient_share, None, None, None


@dataclass(frozen=True)
class LearnedWeight:
    """A weight of a prepared graph that is rounded to learned steps.

    `channel_scale` is the node that computes what folding a BatchNorm multiplies the weight by, None without a
    BatchNorm.
    """

    name: str
    quantizer: LearnedStep
    channel_scale: Node | None

    def scale_in(self, model: GraphModule) -> Tensor | None:
        """What folding multiplies each channel by, now; float32 (channels,)."""
        if self.channel_scale is None:
            return None
        gain, variance, eps = self.channel_scale.args
        assert isinstance(variance, Node)
        weight = named_tensor(model, str(gain.target)) if isinstance(gain, Node) else None
        return rounding_scale(weight, named_tensor(model, str(variance.target)), cast("float", eps))


def learn_steps(prepared: GraphModule, up_to_bits: int) -> int:
    """Let the steps of every fake quantizer with at most so many bits be learned; returns how many.

    They start only with `start_steps`.
    """
    learned: dict[int, LearnedStep] = {}
    for node in prepared.graph.nodes:
        module = called_module(prepared, node)
        if not isinstance(module, FakeQuantizer):
            continue
        observer = module.activation_post_process
        if bits_between(observer.quant_min, observer.quant_max) > up_to_bits:
            continue
        if id(module) not in learned:
            learned[id(module)] = LearnedStep(module, of_weight=node.args[0].op == "get_attr")
        prepared.set_submodule(str(node.target), learned[id(module)])
    return len(learned)


@torch.no_grad()
def start_steps(prepared: GraphModule, batches: Iterable[Tensor]) -> None:
    """Start each learned step at the least error.

    Those of weights need the weights alone, those of activations need `batches` of float32 images.
    """
    weights = list(learned_weights(prepared))
    for weight in weights:
        weight.quantizer.start_from_weight(named_tensor(prepared, weight.name), weight.scale_in(prepared))
    of_weights = {id(weight.quantizer) for weight in weights}
    activations = [step for step in learned_steps(prepared) if id(step) not in of_weights]
    if not activations:
        return
    observed = [each for each in fake_quantizers(prepared) if isinstance(each, FakeQuantizer)]
    training = prepared.training
    prepared.eval()
    for each in observed:
        each.enable_fake_quant(False)  # they have seen nothing yet
    for step in activations:
        observer = step.activation_post_process
        step.histogram = LeastErrorHistogramObserver(
            dtype=observer.dtype,
            qscheme=observer.qscheme,
            quant_min=observer.quant_min,
            quant_max=observer.quant_max,
            eps=observer.eps.item(),
        )
    for batch in batches:
        prepared(batch)
    for step in activations:
        step.start_from_histogram()
    for each in observed:
        each.enable_fake_quant(True)
    prepared.train(training)


def settle_steps(prepared: GraphModule) -> None:
    """Write what was learned into the observers, which conversion reads."""
    weights = {id(weight.quantizer): weight for weight in learned_weights(prepared)}
    for step in learned_steps(prepared):
        weight = weights.get(id(step))
        step.settle(None if weight is None else weight.scale_in(prepared))


def learned_steps(model: nn.Module) -> list[LearnedStep]:
    """The fake quantizers in `model` whose steps are learned, each once."""
    return [child for child in model.modules() if isinstance(child, LearnedStep)]


def learned_weights(prepared: GraphModule) -> Iterator[LearnedWeight]:
    """The weights that are rounded to learned steps, each once."""
    seen = set()
    for node in prepared.graph.nodes:
        module = called_module(prepared, node)
        if isinstance(module, LearnedStep) and node.args[0].op == "get_attr" and id(module) not in seen:
            seen.add(id(module))
            yield LearnedWeight(str(node.args[0].target), module, node.args[1] if len(node.args) > 1 else None)


@torch.no_grad()
def dampen(prepared: GraphModule, share: float) -> None:
    """Pull each weight that learned steps round towards the middle of its step, by `share` of the way.

    Weights beyond the last integer are left alone: the loss moves them, and the step.
    """
    for weight, step, quant_max in _rounded_weights(prepared):
        middle = (weight / step).round_().clamp_(-quant_max, quant_max).mul_(step)
        pull = middle.sub_(weight).mul_(share)
        weight.add_(pull.masked_fill_(weight.abs() > step * (quant_max + 0.5), 0.0))


@torch.no_grad()
def share_between_integers(prepared: GraphModule) -> float:
    """Share of the weights that lie so close to the border between two integers that a small move changes them."""
    close = total = 0
    for weight, step, quant_max in _rounded_weights(prepared):
        from_border = ((weight / step).abs().remainder_(1.0) - 0.5).abs_()
        close += int(((from_border < _BETWEEN) & (weight.abs() < step * quant_max)).sum())
        total += weight.numel()
    return close / total if total else 0.0


def _rounded_weights(prepared: GraphModule) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Each weight, its steps shaped to divide it by, and its largest integer."""
    for learned in learned_weights(prepared):
        weight, quantizer = named_tensor(prepared, learned.name), learned.quantizer
        step = quantizer.log_step.exp()
        if not quantizer.is_per_channel and (scale := learned.scale_in(prepared)) is not None:
            step = step / scale.abs()
        yield (
            weight,
            along(step, quantizer.channel_axis, weight.dim()) if step.numel() > 1 else step,
            quantizer.activation_post_process.quant_max,
        )
