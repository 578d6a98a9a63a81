"""Measures what each layer of a file adds to the error of its answers.

All images go through four computations, a few at a time:

1. the float program: the quantized one with its rounding left out. Its value at a layer's end is y.
2. each layer alone: with its weights rounded, with its result rounded; see `LayerNoise`.
3. the file, which shows its inner values (`ExporterPlugin.tap`).
4. the quantized program *from the file's values*: behind each layer, what the file has there takes the place of what
   the program computed. So what a kernel does otherwise is seen at that kernel alone, and not behind it again.

Then the float program from each layer's end on, with the errors of that layer added, tells what they do to the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from edgeopt.plugins.tap import Seen
from edgeopt.sensitivity.calls import Call, Values
from edgeopt.why.matching import Found, recognized
from edgeopt.why.points import Point, RoundedProgram, is_rounding
from edgeopt.why.table import LayerNoise, Noise, together

if TYPE_CHECKING:
    from edgeopt.arrays import Outputs

Batch = NDArray[np.float32] | NDArray[np.uint8]


@dataclass(frozen=True)
class Measured:
    """What was measured: the layers in order, each output, and the points that the file does not show."""

    layers: tuple[LayerNoise, ...]
    outputs: tuple[Noise, ...]
    agreement: float
    images: int
    unseen: tuple[str, ...]


@dataclass
class _Sums:
    """What is added up of a point over the images."""

    total: Noise = field(default_factory=Noise)
    weights: Noise = field(default_factory=Noise)
    activation: Noise = field(default_factory=Noise)
    kernel: Noise = field(default_factory=Noise)
    at_output: list[Noise] = field(default_factory=list)
    clipped: float = 0.0
    of_clipped: float = 0.0
    values: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    peaks: Tensor | None = None


def measure(
    program: RoundedProgram,
    batches: Iterable[Batch],
    tap: Callable[[Batch], Seen],
    alike: Callable[[Outputs, Outputs], NDArray[np.bool_]],
    advance: Callable[[int], None] = lambda _images: None,
) -> Measured:
    """What each layer adds on the images of `batches`, as the file takes them; `tap` gives the file's values of them.

    `alike` says for which images two answers are the same, as `Task.alike` does; `advance` is told of each batch that
    is done.
    """
    work = _Work(program, alike)
    with torch.inference_mode():
        for batch in batches:
            work.add(torch.from_numpy(np.ascontiguousarray(batch)), tap(batch))
            advance(len(batch))
    return work.measured()


class _Work:
    def __init__(self, program: RoundedProgram, alike: Callable[[Outputs, Outputs], NDArray[np.bool_]]) -> None:
        self.program, self.alike = program, alike
        self.sums = {point.end: _Sums() for point in program.points}
        self.behind = {point.end: program.behind(point.end) for point in program.points}
        self.matched: dict[Node, Found | None] = {}
        self.outputs: list[Noise] = []
        self.agreeing, self.images = 0, 0

    def add(self, batch: Tensor, seen: Seen) -> None:
        """Adds the figures of a few images."""
        code = self.program.code
        plain: Values = {code.input: batch}
        for call in code.calls:
            plain[call.node] = self._float(call, plain)
        answers = self._answers(plain)
        given = [torch.from_numpy(np.ascontiguousarray(each)) for each in seen.outputs]
        self.outputs = _added(self.outputs, answers, given)
        self.agreeing += int(self.alike(seen.outputs, tuple(each.numpy() for each in answers)).sum())
        self.images += len(batch)
        errors = {point.end: self._alone(point, plain) for point in self.program.points}
        for point, kernel in self._kernels(batch, seen, plain):
            errors[point.end] = errors[point.end] + kernel
        for point in self.program.points:
            changed = self._from(point, plain, plain[point.end] + errors[point.end])
            sums = self.sums[point.end]
            sums.at_output = _added(sums.at_output, answers, changed)

    def measured(self) -> Measured:
        """What was found, once all images were added."""
        points = self.program.points
        return Measured(
            layers=tuple(self._layer(point) for point in points),
            outputs=tuple(self.outputs),
            agreement=self.agreeing / self.images if self.images else 1.0,
            images=self.images,
            unseen=tuple(point.name for point in points if self.matched.get(point.end) is None),
        )

    # ---- the parts -------------------------------------------------------------------------------------------------

    def _alone(self, point: Point, plain: Values) -> Tensor:
        """The sum of the errors that weights and range make by themselves."""
        y, sums = plain[point.end], self.sums[point.end]
        of_weights = torch.zeros_like(y)
        if point.layer is not None:
            values: Values = {}
            for call in point.calls:
                # the layer with its rounded constants, given the float program's values
                args, kwargs = (self._given(given, values, plain) for given in (call.args, call.kwargs))
                values[call.node] = call.operator(*args, **kwargs)
            of_weights = values[point.end] - y
        of_range = torch.zeros_like(y)
        if point.quantize is not None:
            of_range = self._rounded(point, y) - y
        sums.weights += _noise(y, of_weights)
        sums.activation += _noise(y, of_range)
        sums.values += y.numel()
        sums.low, sums.high = min(sums.low, float(y.min())), max(sums.high, float(y.max()))
        if y.dim() > 1:
            peaks = y.abs().transpose(0, 1).flatten(1).amax(1)
            sums.peaks = peaks if sums.peaks is None else torch.maximum(sums.peaks, peaks)
        if (limits := point.range) is not None:
            slack = (limits[1] - limits[0]) * 1e-3  # a value that is rounded to the last integer is not cut off
            beyond = (y < limits[0] - slack) | (y > limits[1] + slack)
            sums.clipped += float(beyond.sum())
            sums.of_clipped += float(of_range[beyond].double().square().sum())
        return of_weights + of_range

    def _kernels(self, batch: Tensor, seen: Seen, plain: Values) -> list[tuple[Point, Tensor]]:
        """What each kernel of the file does otherwise than the quantized program on the same values."""
        code = self.program.code
        ends = {point.end: point for point in self.program.points}
        replaced: Values = {}
        values: Values = {code.input: batch}
        found = []

        def look(node: Node) -> None:
            point = ends.get(node)
            if point is None:
                return
            expected = values[node] if point.quantize is None else self._rounded(point, values[node])
            shown = self._shown(point, expected, seen)
            if shown is None:
                return
            self.sums[node].total += _noise(plain[node], shown - plain[node])
            self.sums[node].kernel += _noise(plain[node], shown - expected)
            found.append((point, shown - expected))
            if point.quantize is None:
                values[node] = shown
            else:
                replaced.update({call.node: shown for call in point.dequantize})

        look(code.input)
        for call in code.calls:
            if call.node in replaced:
                values[call.node] = replaced[call.node]
                continue
            args, kwargs = self._value(call.args, values), self._value(call.kwargs, values)
            values[call.node] = call.operator(*args, **kwargs)
            look(call.node)
        return found

    def _shown(self, point: Point, expected: Tensor, seen: Seen) -> Tensor | None:
        """The file's value of a point, in the layout of the program; found once, by its node or by what it holds."""
        if point.end not in self.matched:
            self.matched[point.end] = recognized(point.shown.name, expected, seen, is_layer=point.layer is not None)
        found = self.matched[point.end]
        return None if found is None else found.value(seen)

    def _from(self, point: Point, plain: Values, value: Tensor) -> list[Tensor]:
        """The outputs of the float program with another value at a point's end."""
        changed: Values = {point.end: value}
        for call in self.behind[point.end]:
            changed[call.node] = self._float(call, _Over(changed, plain))
        return self._answers(_Over(changed, plain))

    def _answers(self, values: Mapping[Node, Any]) -> list[Tensor]:
        """The outputs among the values of one run."""
        return [values[node] for node in self.program.code.outputs]

    # ---- single calls ----------------------------------------------------------------------------------------------

    def _float(self, call: Call, values: Mapping[Node, Any]) -> Any:
        """The result of a call without rounding."""
        constants = self.program.float_constants

        def read(node: Node) -> Any:
            return values[node] if node in values else constants[node]

        if is_rounding(call):
            return read(call.args[0])
        args, kwargs = map_arg((call.args, call.kwargs), read)
        return call.operator(*args, **kwargs)

    def _rounded(self, point: Point, value: Tensor) -> Tensor:
        """A value as the integers of a point give it back."""
        assert point.quantize is not None
        integers = point.quantize.operator(value, *self._value(point.quantize.args[1:], {}))
        dequantize = point.dequantize[0]
        back: Tensor = dequantize.operator(
            integers, *self._value(dequantize.args[1:], {}), **self._value(dequantize.kwargs, {})
        )
        return back

    def _given(self, arguments: Any, inner: Values, plain: Values) -> Any:
        """Arguments from a layer's own values, the float program's, and the rounded constants, in this order."""
        constants = self.program.code.constants

        def read(node: Node) -> Any:
            return inner[node] if node in inner else plain[node] if node in plain else constants[node]

        return map_arg(arguments, read)

    def _value(self, argument: Any, values: Values) -> Any:
        constants = self.program.code.constants
        return map_arg(argument, lambda node: values[node] if node in values else constants[node])

    def _layer(self, point: Point) -> LayerNoise:
        sums = self.sums[point.end]
        is_seen = self.matched.get(point.end) is not None
        return LayerNoise(
            name=point.name,
            kind=point.kind,
            module=point.module,
            weight_bits=point.weight_bits,
            activation_bits=point.activation_bits,
            total=sums.total if is_seen else None,
            weights=sums.weights,
            activation=sums.activation,
            kernel=sums.kernel if is_seen else None,
            at_output=together(sums.at_output),
            clipped=sums.clipped / sums.values if sums.values else 0.0,
            clipping=sums.of_clipped / sums.activation.noise if sums.activation.noise else 0.0,
            range=point.range,
            seen=(sums.low, sums.high),
            per_channel=point.per_channel,
            spread=None if sums.peaks is None else float(sums.peaks.median() / sums.peaks.max().clamp(min=1e-30)),
            readers=self._layers_behind(point),
        )

    def _layers_behind(self, point: Point) -> tuple[str, ...]:
        """The layers that read a point's result, perhaps through operators that have no point of their own."""
        owners = {call.node: other for other in self.program.points for call in other.calls}
        found: list[str] = []
        waiting, seen = [point.end], {point.end}
        while waiting:
            for call in self.program.readers.get(waiting.pop(), ()):
                if call.node in seen:
                    continue
                seen.add(call.node)
                owner = owners.get(call.node)
                if owner is None:
                    waiting.append(call.node)
                elif owner.layer is not None:
                    found.append(owner.name)
        return tuple(dict.fromkeys(found))


class _Over(dict[Node, Any]):
    """Values that were computed anew, over those of the float program."""

    def __init__(self, changed: Values, plain: Values) -> None:
        super().__init__()
        self._changed, self._plain = changed, plain

    def __contains__(self, node: object) -> bool:
        return node in self._changed or node in self._plain

    def __getitem__(self, node: Node) -> Any:
        return self._changed[node] if node in self._changed else self._plain[node]


def _added(sums: Sequence[Noise], outputs: Sequence[Tensor], others: Sequence[Tensor]) -> list[Noise]:
    """The noise of each output with that of a few images more; no sums are those of no image."""
    found = [_apart(own, other) for own, other in zip(outputs, others, strict=True)]
    return [sum_ + each for sum_, each in zip(sums, found, strict=True)] if sums else found


def _apart(output: Tensor, other: Tensor) -> Noise:
    """How far an output is from another; of integers, how many are others."""
    if output.is_floating_point():
        return _noise(output, other - output)
    return Noise(float(output.numel()), float((output != other).sum()))


def _noise(signal: Tensor, error: Tensor) -> Noise:
    return Noise(float(signal.double().square().sum()), float(error.double().square().sum()))
