"""Fewer than eight bits, or sixteen for activations, for any target's quantizer.

A layer is a convolution or linear layer with a weight of its own. `activation_bits` concern what enters a layer. What
is only added or multiplied keeps eight bits, and so do the images and the logits. A result that enters both a layer
and a sum is rounded to eight bits, and once more in front of the layer. Sixteen bits are for all activations alike.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import HistogramObserver, MinMaxObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import (
    QuantizationSpec,
    QuantizationSpecBase,
    Quantizer,
    SharedQuantizationSpec,
)
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from edgeopt.networks.bits import (
    CONTAINER_BITS,
    FLOAT_BITS,
    WIDE_BITS,
    activation_range,
    bits_between,
    weight_range,
)
from edgeopt.networks.layer_names import named
from edgeopt.networks.layers import LayerOperator, layer_call
from edgeopt.networks.tensors import named_tensor
from edgeopt.plugins import Bits, Json, NothingChangedError, QuantizerPlugin, Use, UserError
from edgeopt_torchao.bits.end_of_graph import EndOfGraph
from edgeopt_torchao.bits.int16_activations import WideningQuantizer
from edgeopt_torchao.bits.least_error_ranges import (
    LeastErrorHistogramObserver,
    LeastErrorObserver,
    LeastErrorPerChannelObserver,
)
from edgeopt_torchao.graph.around import QuantizerAround
from edgeopt_torchao.graph.repeated_calls import name_without_call
from edgeopt_torchao.options import BitOptions

IN_FLOAT = Bits(FLOAT_BITS, FLOAT_BITS)


def label(bits: Bits) -> str:
    """Short text, such as "w4a8", or "16x8" as runtimes call activations of 16 bits with weights of 8."""
    if bits == IN_FLOAT:
        return "float"
    return "16x8" if bits == Bits(CONTAINER_BITS, WIDE_BITS) else f"w{bits.weights}a{bits.activations}"


@dataclass(frozen=True)
class BitRules:
    """How many bits the layers of a model take.

    `rest` are the bits of all layers that nothing below names. `edges` are the fewest bits of the layers that see the
    images themselves or make the logits. `patterns` name layers that take other bits than the rest. `layers` name
    single layers, and have the last word. `IN_FLOAT` keeps a layer in float. `exact` are places of outputs: the last
    layers before them, of which nothing else is said, stay in float, and what comes after those does.
    """

    rest: Bits = field(default_factory=Bits)
    edges: int = CONTAINER_BITS
    patterns: Mapping[str, Bits] = field(default_factory=dict)
    layers: Mapping[str, Bits] = field(default_factory=dict)
    exact: tuple[int, ...] = ()

    def with_layers(self, layers: Mapping[str, Bits]) -> BitRules:
        """The same, with more single layers."""
        return replace(self, layers={**self.layers, **layers})

    @property
    def changes_nothing(self) -> bool:
        """Whether the quantizer can be used as it is."""
        return self.rest == Bits() and not (self.exact or self.patterns or self.layers)


@dataclass(frozen=True)
class QuantizableLayer:
    """A layer of a captured graph: its name in the model, its node, and the nodes of what it multiplies and adds."""

    name: str
    node: Node
    operator: LayerOperator
    activation: Node
    weight: Node
    bias: Node | None


def weighted_layers(model: GraphModule) -> list[QuantizableLayer]:
    """The convolution and linear layers of a captured graph with a constant weight, in the order in which they run."""
    found = []
    for layer in filter(None, map(layer_call, model.graph.nodes)):
        if layer.weight.op == "get_attr":
            holder, _, attribute = str(layer.weight.target).rpartition(".")
            name = name_without_call(holder if attribute == "weight" else str(layer.weight.target))
            found.append(QuantizableLayer(name, layer.node, layer.operator, layer.input, layer.weight, layer.bias))
    return found


def bits_of_layers(layers: list[QuantizableLayer], bits: BitRules, last: Collection[str] = ()) -> dict[str, Bits]:
    """What each layer takes, by name; `last` are those that give the outputs of `bits.exact`.

    Raises `NothingChangedError` when a pattern names no layer, `UserError` when two patterns name one layer and do not
    agree.
    """
    chosen = dict.fromkeys((layer.name for layer in layers), bits.rest)
    chosen |= dict.fromkeys(_edges(layers), _edge(bits)) | dict.fromkeys(last, IN_FLOAT)
    given: dict[str, str] = {}
    for pattern, names in named(chosen, bits.patterns, "layer_bits").items():
        for name in names:
            other = given.setdefault(name, pattern)
            if bits.patterns[other] != bits.patterns[pattern]:
                raise UserError(
                    f"layer_bits: {name!r} is named by {other!r} and by {pattern!r}, with other bits",
                    hint="let each layer be named once",
                )
            chosen[name] = bits.patterns[pattern]
    return chosen | dict(bits.layers)


def _edge(bits: BitRules) -> Bits:
    return Bits(max(bits.rest.weights, bits.edges), max(bits.rest.activations, bits.edges))


def _edges(layers: list[QuantizableLayer]) -> set[str]:
    """Names of the layers with no layer before them, and of those with no layer after them."""
    by_node = {layer.node: layer.name for layer in layers}
    behind: dict[Node, bool] = {}
    inner = set()
    for node in next(iter(by_node)).graph.nodes if by_node else ():
        behind[node] = any(behind[each] or each in by_node for each in node.all_input_nodes)
    ahead: dict[Node, bool] = {}
    for node in reversed(list(behind)):
        ahead[node] = any(ahead[each] or each in by_node for each in node.users)
        if node in by_node and behind[node] and ahead[node]:
            inner.add(by_node[node])
    return set(by_node.values()) - inner


class NarrowingQuantizer(QuantizerAround):
    """`quantizer`, with the layers narrowed to `bits`.

    Once it has annotated a graph, `chosen` says what bits each layer takes, and `sizes` how many weights it has.
    """

    def __init__(self, quantizer: Quantizer, bits: BitRules) -> None:
        super().__init__(quantizer)
        self._bits = bits
        self.chosen: dict[str, Bits] = {}
        self.sizes: dict[str, int] = {}

    def annotate(self, model: GraphModule) -> GraphModule:
        model = super().annotate(model)
        layers = [
            layer for layer in weighted_layers(model) if isinstance(_spec(layer.node, layer.weight), QuantizationSpec)
        ]
        if not layers:
            raise NothingChangedError(
                f"{type(self._quantizer).__name__} quantizes no layer whose bits could be chosen",
                hint="use a quantizer that covers the layers of this model",
            )
        end = EndOfGraph.of(model, self._bits.exact, {layer.node: layer.name for layer in layers})
        self.chosen = bits_of_layers(layers, self._bits, end.names)
        self.sizes = {layer.name: named_tensor(model, str(layer.weight.target)).numel() for layer in layers}
        for layer in layers:
            bits = self.chosen[layer.name]
            inputs = layer.node.meta[Q_ANNOTATION_KEY].input_qspec_map
            if bits.weights == FLOAT_BITS:
                inputs.clear()
                continue
            inputs[layer.weight] = narrowed_weight(inputs[layer.weight], bits.weights)
            if isinstance(given := inputs.get(layer.activation), QuantizationSpec):
                inputs[layer.activation] = narrowed_activation(given, bits.activations)
        for node in end.in_float({name for name, bits in self.chosen.items() if bits == IN_FLOAT}):
            node.meta.pop(Q_ANNOTATION_KEY, None)
        _narrow_producers(model)
        return model


def _spec(node: Node, source: Node | None = None) -> QuantizationSpecBase | None:
    """How a node's result is quantized or, with `source`, what it reads from there."""
    annotation = node.meta.get(Q_ANNOTATION_KEY)
    if annotation is None:
        return None
    spec: QuantizationSpecBase | None = (
        annotation.output_qspec if source is None else annotation.input_qspec_map.get(source)
    )
    return spec


def _narrow_producers(model: GraphModule) -> None:
    """Rounds each result to the bits that its readers take, where all of them agree, so that it is not rounded twice.

    Operators that only move values around, whose output shares its input's numbers, pass on what their own readers
    want.
    """
    wanted: dict[Node, int] = {}
    for node in reversed(list(model.graph.nodes)):
        wanted[node] = max((_wanted_by(user, node, wanted) for user in node.users), default=CONTAINER_BITS)
        if wanted[node] == CONTAINER_BITS:
            continue
        annotation = node.meta.get(Q_ANNOTATION_KEY)
        if annotation is None or annotation.output_qspec is None:
            continue
        if isinstance(annotation.output_qspec, QuantizationSpec):
            annotation.output_qspec = narrowed_activation(annotation.output_qspec, wanted[node])
        else:
            for source, given in annotation.input_qspec_map.items():
                if isinstance(given, QuantizationSpec):
                    annotation.input_qspec_map[source] = narrowed_activation(given, wanted[node])


def _wanted_by(reader: Node, node: Node, wanted: Mapping[Node, int]) -> int:
    if isinstance(_spec(reader), SharedQuantizationSpec):
        return wanted[reader]
    given = _spec(reader, node)
    if not isinstance(given, QuantizationSpec) or given.quant_min is None or given.quant_max is None:
        return CONTAINER_BITS
    return bits_between(given.quant_min, given.quant_max)


def narrowed_weight(spec: QuantizationSpec, bits: int) -> QuantizationSpec:
    """`spec` for integers of so many bits around zero: -7 to 7 for four bits.

    The range is symmetric so that folding a negative scale into the weight changes nothing.
    """
    if bits == CONTAINER_BITS:
        return spec
    low, high = weight_range(bits)
    per_channel = spec.qscheme in (torch.per_channel_symmetric, torch.per_channel_affine)
    least_error = LeastErrorPerChannelObserver if per_channel else LeastErrorObserver
    observer = _observer(spec, {MinMaxObserver: least_error, PerChannelMinMaxObserver: least_error})
    return replace(spec, quant_min=low, quant_max=high, observer_or_fake_quant_ctr=observer)


def narrowed_activation(spec: QuantizationSpec, bits: int) -> QuantizationSpec:
    """`spec` for integers of so many bits: -8 to 7 for four."""
    if bits in (CONTAINER_BITS, WIDE_BITS):  # whose integers it has already
        return spec
    observer = _observer(spec, {HistogramObserver: LeastErrorHistogramObserver})
    low, high = activation_range(bits)
    return replace(spec, quant_min=low, quant_max=high, observer_or_fake_quant_ctr=observer)


def _observer(spec: QuantizationSpec, better: Mapping[type, Any]) -> Any:
    """The observer of `spec`, or the one that knows how to saturate in its place, made with the same arguments."""
    given: Any = spec.observer_or_fake_quant_ctr
    partial = getattr(given, "p", None)
    kind = given if partial is None else partial.func
    if kind not in better:
        return given
    return better[kind].with_args(**({} if partial is None else partial.keywords))


@dataclass(frozen=True)
class Target:
    """A target's quantizer; once it has annotated a graph, `precision`, `facts` and `details` say what it chose."""

    quantizer: Quantizer
    bits: BitRules
    int8: str

    @property
    def chosen(self) -> Mapping[str, Bits]:
        """What each layer takes, by name; empty where the quantizer was left as it is."""
        return self.quantizer.chosen if isinstance(self.quantizer, NarrowingQuantizer) else {}

    @property
    def precision(self) -> str:
        """Short name of the result: "int8", "w4a8", "16x8", or "mixed" where layers were named."""
        narrow = {bits for bits in self.chosen.values() if bits not in (Bits(), IN_FLOAT)}
        if not narrow:
            return self.int8
        return label(self.bits.rest) if narrow <= {self.bits.rest, _edge(self.bits)} else "mixed"

    def facts(self) -> dict[str, Json]:
        """What the report shows: how many layers take which bits, and the average over all weights."""
        if not isinstance(self.quantizer, NarrowingQuantizer):
            return {}
        counts = Counter(label(bits) for bits in self.chosen.values())
        sizes = self.quantizer.sizes
        average = sum(sizes[name] * bits.weights for name, bits in self.chosen.items()) / sum(sizes.values())
        return {
            "bits": ", ".join(f"{label}: {count} layers" for label, count in counts.most_common()),
            "average_weight_bits": round(average, 3),
        }

    def details(self) -> dict[str, Json]:
        """The bits of each layer."""
        return {"bits": {name: asdict(bits) for name, bits in self.chosen.items()}} if self.chosen else {}


def asked_bits(options: BitOptions) -> BitRules:
    """What a recipe's options say of each layer, without a budget."""
    layers = {
        pattern: IN_FLOAT if bits == "float" else Bits(bits, bits) for pattern, bits in options.layer_bits.items()
    }
    return BitRules(Bits(options.weight_bits, options.activation_bits), options.edge_bits, layers)


def covered(model: GraphModule, use: Use[QuantizerPlugin], bits: BitRules) -> NarrowingQuantizer:
    """What the quantizer and `bits` choose for the layers of a captured graph, which is left alone."""
    quantizer = NarrowingQuantizer(_built(use, bits, qat=False), bits)
    quantizer.annotate(copy.deepcopy(model))
    return quantizer


def _built(use: Use[QuantizerPlugin], bits: BitRules, *, qat: bool) -> Quantizer:
    quantizer: Quantizer = use.plugin.build(use.options, qat)
    return WideningQuantizer(quantizer) if bits.rest.activations == WIDE_BITS else quantizer


def target_of(use: Use[QuantizerPlugin], bits: BitRules, *, qat: bool) -> Target:
    """The quantizer that a recipe names, narrowed to `bits`."""
    quantizer = _built(use, bits, qat=qat)
    narrowed = quantizer if bits.changes_nothing else NarrowingQuantizer(quantizer, bits)
    return Target(narrowed, bits, use.plugin.precision)
