"""Repairs the weights and biases of a quantized program layer by layer, so that it answers as the float one does.

Both programs are walked side by side over the same calibration images. Each layer sees what the layers before it,
already repaired, give; so a layer also corrects the errors of earlier ones.

- AdaRound chooses for each weight whether it is rounded up or down, so that the layer's output changes least: M. Nagel
  et al., "Up or down? Adaptive rounding for post-training quantization", ICML 2020, https://arxiv.org/abs/2004.10568.
- Bias correction takes the mean error of each output channel out of the bias: M. Nagel et al., ICCV 2019,
  https://arxiv.org/abs/1906.04721, section 4.2, with the means of calibration images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.node import Argument, map_arg
from torchao.quantization.pt2e import ObserverBase

from edgeopt.networks.layers import LayerCall, constant_of, layer_call
from edgeopt.networks.tensors import name_beside, named_tensor, set_named_tensor
from edgeopt.plugins import NothingChangedError
from edgeopt_torchao.graph.arguments import operator_of
from edgeopt_torchao.graph.batch_norm import called_module
from edgeopt_torchao.graph.fake_quantize import along

_STRETCH = 1.1, -0.1  # the sigmoid is stretched beyond 0 and 1 and cut off, so that it can reach both
_REGULARIZER = 0.01
_EXPONENTS = 20.0, 2.0  # of the regularizer: from mild to strict
_WARM_UP = 0.2  # of the steps, without regularizer
_IMAGES = 32  # in a step


@dataclass(frozen=True)
class Repairs:
    """What is to be done to each layer; `rounding_steps` is 0 where weights stay rounded to the nearest."""

    rounding_steps: int = 0
    learning_rate: float = 1e-2
    correct_bias: bool = False


@dataclass(frozen=True)
class Repaired:
    """How many layers were visited, how many weights changed their rounding, and how many biases were corrected."""

    layers: int
    weights_moved: int
    biases_corrected: int


@dataclass(frozen=True)
class RoundedLayer:
    """A layer of a converted, unfolded program: its call, and how its weight becomes integers.

    `step` is shaped to divide the weight by.
    """

    call: LayerCall
    weight_name: str
    step: Tensor
    quant_min: int
    quant_max: int


def repair(
    original: GraphModule,
    converted: GraphModule,
    images: Tensor,
    repairs: Repairs,
    seed: int,
    done: Callable[[], None] = lambda: None,
) -> Repaired:
    """Changes weights and biases of `converted` in place, so that its layers give what those of `original` do.

    `original` is the float program with the observers that `converted` was made from; `images`, float32 (n, channels,
    height, width), are walked through at once. `done` is called after each layer.

    Raises `NothingChangedError` when no layer of the program has rounded weights.
    """
    layers = {layer.weight_name: layer for layer in rounded_layers(converted)}
    if not layers:
        raise NothingChangedError(
            "no layer of the program has rounded weights that could be repaired",
            hint='leave rounding = "adaptive" and correct_bias out',
        )
    generator = torch.Generator().manual_seed(seed)
    there = _walk(original, layer_weights(original), images)
    wanted: dict[str, Tensor] = {}
    moved = corrected = 0
    for stop in _walk(converted, {layer.call: name for name, layer in layers.items()}, images):
        while stop.weight_name not in wanted:  # the two graphs may run layers beside each other in another order
            reference = next(there)
            wanted[reference.weight_name] = reference.output()
        layer, target = layers[stop.weight_name], wanted.pop(stop.weight_name)
        if repairs.rounding_steps:
            moved += _round_adaptively(converted, layer, stop, target, repairs, generator)
        if repairs.correct_bias:
            corrected += _correct_bias(converted, layer, stop.output() - target)
        done()
    return Repaired(len(layers), moved, corrected)


def layer_weights(model: GraphModule) -> dict[LayerCall, str]:
    """The convolution and linear layers of a graph with a constant weight, each with the weight's name.

    The weight may be read as it is, through an observer, or through quantize and dequantize nodes.
    """
    found = {}
    for layer in filter(None, map(layer_call, model.graph.nodes)):
        source = constant_of(layer.weight)
        if source is not None:
            found[layer] = str(source.target)
    return found


def rounded_layers(converted: GraphModule) -> Iterator[RoundedLayer]:
    """The layers of a converted, unfolded program with rounded constant weights, in the order in which they run."""
    for layer, name in layer_weights(converted).items():
        quantize = layer.weight.args[0] if layer.weight.args else None
        if not isinstance(quantize, Node) or "quantize_per" not in str(quantize.target):
            continue
        weight = named_tensor(converted, name)
        scale = quantize.args[1]
        step = named_tensor(converted, str(scale.target)).float() if isinstance(scale, Node) else torch.tensor(scale)
        per_channel = "per_channel" in str(quantize.target)
        low, high = cast("tuple[int, int]", quantize.args[4:6] if per_channel else quantize.args[3:5])
        if per_channel:
            step = along(step, cast("int", quantize.args[3]), weight.dim())
        yield RoundedLayer(layer, name, step, low, high)


@dataclass(frozen=True)
class _Stop:
    """A walk that is stopped in front of a layer.

    `input` is what enters the layer; `output` computes what comes out, with the weights as they are at that time.
    """

    weight_name: str
    input: Tensor
    call: Callable[[Tensor, Tensor | None], Tensor]

    @torch.no_grad()
    def output(self) -> Tensor:
        return self.call(self.input, None)


def _walk(model: GraphModule, layers: Mapping[LayerCall, str], images: Tensor) -> Iterator[_Stop]:
    """Runs a graph, and stops in front of each of `layers`.

    Constants are read when they are used, so they may change while the walk is stopped.
    """
    values: dict[Node, Tensor] = {}
    calls = {layer.node: layer for layer in layers}
    last_use = {source: node for node in model.graph.nodes for source in node.all_input_nodes}

    def value(node: Node) -> Tensor:
        return values[node] if node in values else result(node)

    def result(node: Node) -> Tensor:
        if node.op == "get_attr":
            return named_tensor(model, str(node.target))
        arguments, named_arguments = cast("Any", map_arg((node.args, node.kwargs), value))
        module = called_module(model, node)
        if isinstance(module, ObserverBase):  # it has seen enough
            return cast("Tensor", arguments[0])
        return cast("Tensor", (module or operator_of(node))(*arguments, **named_arguments))

    def call(layer: LayerCall) -> Callable[[Tensor, Tensor | None], Tensor]:
        def called(given: Tensor, weight: Tensor | None) -> Tensor:
            operator, node = layer.operator, layer.node
            places = range(len(node.args))
            others = [None if place == operator.input else node.args[place] for place in places]
            if weight is not None:
                others[operator.weight] = None
            arguments: list[Argument] = list(map_arg(others, value))
            arguments[operator.input] = given
            if weight is not None:
                arguments[operator.weight] = weight
            return cast("Tensor", operator_of(node)(*arguments, **cast("Any", map_arg(node.kwargs, value))))

        return called

    for node in model.graph.nodes:
        if node.op == "placeholder":
            values[node] = images
        elif node.op == "output":
            return
        elif any(source in values for source in node.all_input_nodes):
            if node in calls:
                layer = calls[node]
                yield _Stop(layers[layer], values[layer.input], call(layer))
            with torch.no_grad():
                values[node] = result(node)
            for source in node.all_input_nodes:
                if last_use.get(source) is node:  # a bias may have come in behind the walk
                    values.pop(source, None)


def _round_adaptively(
    model: GraphModule, layer: RoundedLayer, stop: _Stop, target: Tensor, repairs: Repairs, generator: torch.Generator
) -> int:
    """Learns for each weight whether it is rounded up or down; returns how many leave their nearest integer.

    Section 3 of the paper: the share `up` starts where the weight lies between two integers, and a regularizer that
    grows stricter drives it to 0 or 1.
    """
    weight, step = named_tensor(model, layer.weight_name), layer.step
    scaled = weight.detach() / step
    below = scaled.floor()
    high, low = _STRETCH
    logits = nn.Parameter(-torch.log((high - low) / (scaled - below - low) - 1))
    optimizer = torch.optim.Adam([logits], lr=repairs.learning_rate)

    def share_up() -> Tensor:
        return (torch.sigmoid(logits) * (high - low) + low).clamp(0, 1)

    count, steps = len(target), repairs.rounding_steps
    for number in range(steps):
        chosen = torch.randint(count, (min(_IMAGES, count),), generator=generator)
        up = share_up()
        rounded = (below + up).clamp(layer.quant_min, layer.quant_max) * step
        loss = (stop.call(stop.input[chosen], rounded) - target[chosen]).square().sum(1).mean()
        done = number / steps
        if done > _WARM_UP:
            first, last = _EXPONENTS
            exponent = last + (first - last) * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2
            loss = loss + _REGULARIZER * (1 - (2 * up - 1).abs().pow(exponent)).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        optimizer.step()
    with torch.no_grad():
        integers = (below + (share_up() >= 0.5)).clamp(layer.quant_min, layer.quant_max)
        nearest = scaled.round().clamp(layer.quant_min, layer.quant_max)
        weight.copy_(integers * step)
    return int((integers != nearest).sum())


@torch.no_grad()
def _correct_bias(model: GraphModule, layer: RoundedLayer, error: Tensor) -> bool:
    """Subtracts the mean of `error` over all but the channels from the bias; returns whether there is a place for one.

    `error` is (n, channels, ...) for a convolution, and (..., channels) for a linear layer.
    """
    node, operator = layer.call.node, layer.call.operator
    shift = error.movedim(operator.output_axis, 0).flatten(1).mean(1)
    if layer.call.bias is not None:
        parameter = named_tensor(model, str(layer.call.bias.target))
        parameter.sub_(shift)
        return True
    if operator.bias is None:  # a product, which has no place for one
        return False
    name = name_beside(layer.weight_name, "bias")
    set_named_tensor(model, name, nn.Parameter(-shift))
    with model.graph.inserting_before(node):
        bias = model.graph.get_attr(name)
    node.args = (*node.args[: operator.bias], bias, *node.args[operator.bias + 1 :])
    model.recompile()
    return True
