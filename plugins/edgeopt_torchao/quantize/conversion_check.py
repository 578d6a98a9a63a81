"""Whether a converted program rounds as the module did that was trained, layer by layer.

Both are given the same images. Wherever the converted program has rounded a tensor, that tensor is compared with the
one of the trained module, in steps: the distance between two integers of that tensor. What follows then goes on with
the trained module's own tensor, so each layer is judged on equal inputs and errors of earlier ones are not in it.

On equal inputs, a right layer can differ by the order of its additions and by nothing else. So only a value that lies
at the border between two integers may become another one, which is then one step away. Between two integers of int16
lies less than the order of additions makes: there a step is that of eight bits, 256 integers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.node import map_arg
from torchao.quantization.pt2e import FakeQuantizeBase

from edgeopt.networks.bits import CONTAINER_BITS, WIDE_BITS
from edgeopt.networks.outputs import tensors
from edgeopt.networks.tensors import named_tensor
from edgeopt.plugins import FunctionChangedError
from edgeopt_torchao.bits.learned_step import LearnedStep
from edgeopt_torchao.graph.arguments import node_at, operator_of
from edgeopt_torchao.graph.batch_norm import BatchNorm, called_module, folding_scale
from edgeopt_torchao.graph.dropout import is_dropout
from edgeopt_torchao.graph.fake_quantize import FakeQuantizer, along
from edgeopt_torchao.quantize.convert import rounds_folded_weight

MOST_STEPS = 1
"""How many steps a value may differ by on equal inputs: it fell to the other side of one border."""
AT_THE_BORDER = 0.05
"""How near to the border between two integers a value must lie, in steps, to fall to either side of it.

The order of additions moves float32 sums of some thousand products by up to a hundredth of a step of 8 bits. How many
values lie there depends on the layer: an average of 16 integers lies on a border once in 16."""
MOST_ASTRAY = 0.001
"""The largest share of a tensor's values that may become another integer and lie at no border."""
LOGITS_TOLERANCE = 1e-4
"""How far logits that are not rounded may differ on equal inputs, as a share of their range: float32 sums again."""
_BUG = "this is a bug in edgeopt or torchao: please report the model and the quantizer"
_OFF_THE_GRID = 0.01  # of a step: float32 holds 255 steps to a thousandth of one
_FAR = 1e30  # beyond any range, so that rounding gives the ends of the range


@dataclass(frozen=True)
class RoundedTensor:
    """One rounded tensor of both programs, on equal inputs.

    `layer` is the module that made it, or the weight. `steps` is the largest difference of a value, in steps; `moved`
    the share of values, 0 to 1, that became another integer, and `astray` that of those which lie at no border. `ends`
    is how far the ends of the two ranges of integers are apart, in steps, and `off_the_grid` how far values of the one
    lie from integers of the other.
    """

    layer: str
    steps: float
    moved: float
    astray: float
    ends: float
    off_the_grid: float

    def problem(self) -> str | None:
        """What is wrong with it, as a sentence's end; None when both round alike."""
        if not self.ends <= _OFF_THE_GRID:  # written so that NaN fails too
            return f"rounds to another range, whose end is {self.ends:.3g} steps away"
        if not self.off_the_grid <= _OFF_THE_GRID:
            return f"rounds to other values, {self.off_the_grid:.2g} of a step beside those of the training"
        if not self.steps <= MOST_STEPS + _OFF_THE_GRID:
            return f"differs by {self.steps:.3g} rounding steps, where equal inputs allow {MOST_STEPS}"
        if not self.astray <= MOST_ASTRAY:
            return f"rounds {self.astray:.2%} of its values to another integer, although they lie at no border"
        return None


@dataclass(frozen=True)
class ConversionCheck:
    """All rounded tensors of a converted program in the order in which they are computed, and the logits.

    `logits` is the largest difference of a logit, or of any output, on equal inputs as a share of its range, 0 where
    they are rounded themselves.
    """

    tensors: tuple[RoundedTensor, ...]
    logits: float

    @property
    def moved(self) -> float:
        """The largest share of one tensor's values that became another integer."""
        return max((tensor.moved for tensor in self.tensors), default=0.0)

    def require_equal(self) -> None:
        """Raises `FunctionChangedError`, which names the first layer that leaves its own rounding step."""
        problems = [(tensor.layer, problem) for tensor in self.tensors if (problem := tensor.problem())]
        if not problems and not self.logits <= LOGITS_TOLERANCE:
            text = f"differ by {self.logits:.2g} of their range, where equal inputs allow {LOGITS_TOLERANCE:g}"
            problems = [("the logits", text)]
        if problems:
            layer, problem = problems[0]
            more = f"; {len(problems) - 1} more tensors differ" if len(problems) > 1 else ""
            raise FunctionChangedError(
                f"the converted program does not compute what was trained: {layer} {problem}{more}",
                hint=_BUG,
            )


@torch.no_grad()
def check_conversion(prepared: GraphModule, converted: GraphModule, batches: Iterable[Tensor]) -> ConversionCheck:
    """Compares `converted` with the trained module `prepared` that it was made from, which is in evaluation mode.

    `batches` are float32 (n, channels, height, width); all rounded tensors of one batch are held at once.

    Raises `FunctionChangedError` when the two do not round the same tensors.
    """
    there, here = _rounded_in_training(prepared), _rounded_by_program(converted)
    layers = {key: _layer(prepared, node) for node, key in there.items()}
    for key in dict.fromkeys([*there.values(), *here.values()]):
        if key not in here.values() or key not in layers:
            name, only = (layers[key], "trained module") if key in layers else (key, "converted program")
            raise FunctionChangedError(f"{name} is rounded in the {only} alone", hint=_BUG)
    tally = _Tally()
    output = next(iter(prepared.graph.find_nodes(op="output"))).args[0]
    returned = list(output) if isinstance(output, (tuple, list)) else [output]
    spans = [_Span() for _ in returned]
    for batch in batches:
        training = _Training(prepared, there)
        expected = tensors(training.run(batch))
        got = tensors(_Program(converted, here, training.rounded, tally).run(batch))
        for span, one, other in zip(spans, expected, got, strict=True):
            span.add(one, other)
    if not tally.values:
        raise ValueError("there is no batch to compare two programs on")
    shares = [0.0 if _is_rounded(prepared, node) else span.share for node, span in zip(returned, spans, strict=True)]
    return ConversionCheck(tuple(tally.result(layers)), max(shares))


class _Span:
    """The range of an output so far, and the largest difference of it."""

    def __init__(self) -> None:
        self._largest, self._low, self._high = 0.0, float("inf"), float("-inf")

    def add(self, expected: Tensor, got: Tensor) -> None:
        """Takes the values of one batch. Of integers, such as classes, the share that differs is the difference."""
        if not expected.is_floating_point():
            self._largest, self._low, self._high = (
                max(self._largest, (expected != got).double().mean().item()),
                0.0,
                1.0,
            )
            return
        self._largest = max(self._largest, (expected - got).abs().max().item())
        self._low, self._high = min(self._low, expected.min().item()), max(self._high, expected.max().item())

    @property
    def share(self) -> float:
        """The difference as a share of the range."""
        return self._largest / max(self._high - self._low, 1e-12)


class _Tally:
    """The differences of each tensor so far."""

    def __init__(self) -> None:
        self.values: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()
        self.astray: Counter[str] = Counter()
        self.largest: dict[str, dict[str, float]] = {}

    def add(self, key: str, steps: Tensor, unrounded: Tensor, integers_in_a_step: int = 1) -> None:
        """Takes the differences of a tensor and the values that the training rounded, both in steps."""
        moved = steps.abs() >= 0.5
        to_border = (0.5 - (unrounded - unrounded.round()).abs()).abs()
        self.values[key] += steps.numel()
        self.moved[key] += int(moved.sum())
        self.astray[key] += int((moved & (to_border > AT_THE_BORDER)).sum())
        self._note(key, "steps", steps)
        integers = steps * integers_in_a_step
        self._note(key, "off_the_grid", integers - integers.round())

    def add_ends(self, key: str, steps: Tensor) -> None:
        self._note(key, "ends", steps)

    def _note(self, key: str, what: str, steps: Tensor) -> None:
        worst = self.largest.setdefault(key, {})
        worst[what] = max(worst.get(what, 0.0), torch.nan_to_num(steps.abs(), nan=float("inf")).max().item())

    def result(self, layers: dict[str, str]) -> Iterator[RoundedTensor]:
        for key, worst in self.largest.items():
            moved, astray = (counts[key] / self.values[key] for counts in (self.moved, self.astray))
            yield RoundedTensor(layers[key], worst["steps"], moved, astray, worst["ends"], worst["off_the_grid"])


@dataclass(frozen=True)
class _Rounded:
    """A tensor as the training rounded it, and before.

    `probes` lie beyond both ends of the range of integers; `ends` is what the training rounds them to.
    """

    value: Tensor
    unrounded: Tensor
    probes: tuple[Tensor, Tensor]
    ends: tuple[Tensor, Tensor]


class _Training(Interpreter):
    """Runs the trained module and keeps what it rounds."""

    def __init__(self, model: GraphModule, keys: dict[Node, str]) -> None:
        super().__init__(model, garbage_collect_values=True)
        self._model, self._keys = model, keys
        self.rounded: dict[str, _Rounded] = {}

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n in self._keys:
            given, *scale = self.fetch_args_kwargs_from_env(n)[0]
            quantizer = called_module(self._model, n)
            assert quantizer is not None
            fold = _folding(self._model, n, result)
            one = result if fold is not None else result[:1]
            far = torch.full_like(one, _FAR)
            probes, ends = (far, -far), (quantizer(far, *scale), quantizer(-far, *scale))
            if fold is None:
                value, unrounded = result.clone(), given.clone()  # the model may change both in place after this
            else:
                value, unrounded = result * fold, given * fold
                probes, ends = (far * fold.sign(), -far * fold.sign()), (ends[0] * fold, ends[1] * fold)
            self.rounded[self._keys[n]] = _Rounded(value, unrounded, probes, ends)
        return result


class _Program(Interpreter):
    """Runs the converted program, and puts what the training rounded in the place of what it rounds itself."""

    def __init__(self, model: GraphModule, keys: dict[Node, str], rounded: dict[str, _Rounded], tally: _Tally) -> None:
        super().__init__(model, garbage_collect_values=True)
        self._keys, self._rounded, self._tally = keys, rounded, tally

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        quantize = n.args[0] if "dequantize_per_" in str(n.target) else None
        if not isinstance(quantize, Node) or quantize not in self._keys:
            return result
        key = self._keys[quantize]
        there = self._rounded[key]
        (scale, *constants), (own_scale, *own_constants) = (self._constants(node) for node in (quantize, n))
        finer = 2 ** (WIDE_BITS - CONTAINER_BITS) if torch.int16 in n.args else 1
        step = torch.as_tensor(own_scale, dtype=result.dtype) * finer
        if step.numel() > 1:
            step = along(step, cast("int", n.args[3]), result.dim())
        self._tally.add(key, (result - there.value) / step, there.unrounded / step, finer)
        for probe, end in zip(there.probes, there.ends, strict=True):
            integers = operator_of(quantize)(probe, scale, *constants)
            self._tally.add_ends(key, (operator_of(n)(integers, own_scale, *own_constants) - end) / step)
        return there.value.clone()  # the program may change it in place after this

    def _constants(self, node: Node) -> tuple[Any, ...]:
        """All arguments but the tensor; constants are read from the module, as their values may be dropped by now."""
        model = cast("GraphModule", self.module)
        constants = map_arg(node.args[1:], lambda constant: named_tensor(model, str(constant.target)))
        return cast("tuple[Any, ...]", constants)


def _rounded_in_training(prepared: GraphModule) -> dict[Node, str]:
    """The nodes that round a tensor in a trained module, each with a key that the converted program has too."""

    def source(node: Node) -> Node:
        module = called_module(prepared, node)
        if is_dropout(module) or (isinstance(module, BatchNorm) and rounds_folded_weight(node_at(node, 0))):
            return source(node_at(node, 0))  # conversion takes it away
        return node

    rounding = (node for node in prepared.graph.nodes if isinstance(called_module(prepared, node), FakeQuantizeBase))
    return _keys(rounding, source)


def _rounded_by_program(converted: GraphModule) -> dict[Node, str]:
    """The same of a converted program, for its quantize nodes."""

    def source(node: Node) -> Node:
        return node_at(node, 0) if "dequantize_per_" in str(node.target) else node

    return _keys((node for node in converted.graph.nodes if _quantizes(node)), source)


def _keys(rounding: Iterable[Node], source: Callable[[Node], Node]) -> dict[Node, str]:
    """A key for each node: what it rounds, and which of those it is that round the same."""
    keys: dict[Node, str] = {}
    seen: Counter[str] = Counter()
    for node in rounding:
        given = source(node_at(node, 0))
        name = keys.get(given) or (str(given.target) if given.op == "get_attr" else given.name)
        seen[name] += 1
        keys[node] = f"{name}#{seen[name]}"
    return keys


def _quantizes(node: Node) -> bool:
    name = str(node.target)
    return node.op == "call_function" and "quantize_per_" in name and "dequantize_per_" not in name


def _folding(prepared: GraphModule, rounding: Node, weight: Tensor) -> Tensor | None:
    """What folding a BatchNorm multiplies a rounded weight by, shaped to multiply it; None where nothing is folded."""
    if len(rounding.args) < 2:
        return None
    scale = node_at(rounding, 1)
    weight_of, variance_of = scale.args[0], node_at(scale, 1)
    gain = named_tensor(prepared, str(weight_of.target)) if isinstance(weight_of, Node) else None
    variance, eps = named_tensor(prepared, str(variance_of.target)), cast("float", scale.args[2])
    quantizer = called_module(prepared, rounding)
    assert isinstance(quantizer, FakeQuantizer | LearnedStep)  # nothing else takes the scale of a BatchNorm
    return along(folding_scale(gain, variance, eps), quantizer.channel_axis, weight.dim())


def _layer(prepared: GraphModule, rounding: Node) -> str:
    """The module whose result is rounded, as a user knows it, or the name of the weight."""
    node = node_at(rounding, 0)
    while called_module(prepared, node) is not None and not isinstance(called_module(prepared, node), BatchNorm):
        node = node_at(node, 0)  # a dropout, or what was rounded before
    if node.op == "placeholder":
        return "the images"
    if node.op != "call_function":
        return str(node.target)
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()), ("",))[0]
    operator = str(node.target).removeprefix("aten.").partition(".")[0]
    return f"{path} ({operator})" if path else operator


def _is_rounded(prepared: GraphModule, node: Any) -> bool:
    module = called_module(prepared, node)
    return isinstance(module, FakeQuantizeBase) or (is_dropout(module) and _is_rounded(prepared, node.args[0]))
