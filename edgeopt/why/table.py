"""The shape of `why.json`, version 1: what each layer of a file adds to the error of its answers, and by what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from edgeopt.arrays import Json

SCHEMA = 1


class Part(StrEnum):
    """What an error comes from."""

    WEIGHTS = "weights"
    ACTIVATION = "activation range"
    KERNEL = "kernel"


@dataclass(frozen=True)
class Noise:
    """The squares of an error, added up over all images, beside those of what it is an error of."""

    signal: float = 0.0
    noise: float = 0.0

    @property
    def db(self) -> float | None:
        """Signal to noise, dB; None where there is no error at all."""
        if self.noise <= 0:
            return None
        return 10 * math.log10(self.signal / self.noise) if self.signal > 0 else -math.inf

    def __add__(self, other: Noise) -> Noise:
        return Noise(self.signal + other.signal, self.noise + other.noise)


def together(outputs: Sequence[Noise]) -> Noise:
    """The noise of several outputs as one, in which each counts alike, however large its values are and however many it
    has: the mean of their noises by their signals, times all signals. That of one output is its own.
    """
    if len(outputs) == 1:
        return outputs[0]
    signal = sum(each.signal for each in outputs)
    shares = [each.noise / each.signal if each.signal else float(each.noise > 0) for each in outputs]
    return Noise(signal, signal * sum(shares) / max(len(shares), 1))


@dataclass(frozen=True)
class OutputNoise:
    """What an output of the file, by its name, is from that of the float program. Of an output in integers, such as
    classes, the signal counts the values, and the noise those that are others.
    """

    name: str
    noise: Noise


@dataclass(frozen=True, kw_only=True)
class LayerNoise:
    """A layer of the file, or another operator whose result is rounded, held against the float program.

    The float program is the program that the file was made from, without any rounding. Of each image, y is what it has
    at the layer's end, behind BatchNorm and activation function. All errors are compared with y.

    - `total`: the file's own value there, minus y: what has come together up to here.
    - `weights`: the layer with the weights and bias as they are rounded, given the float program's input, minus y.
    - `activation`: y rounded as the result of the layer is, minus y. Values beyond the range are cut off: they are
      `clipped` of all, and make `clipping` of this error, shares from 0 to 1. A result that is not rounded has none.
    - `kernel`: the file's value minus what the quantized program computes there *from the file's own values* of the
      layers before: what this kernel of the runtime does otherwise, alone. None where the file does not show the value.
    - `at_output`: the outputs of the float program when the sum of these three errors is added to y, minus its own;
      of several outputs each counts alike, see `together`.

    `blame` is the part with the most noise. `range` are the values that the integers stand for, `seen` those that y
    has. `spread` is the peak of y in the middle one of its channels over that in the largest, None without channels;
    `readers` are the layers that take the result.
    """

    name: str
    kind: str
    module: str
    weight_bits: int | None
    activation_bits: int | None
    total: Noise | None
    weights: Noise
    activation: Noise
    kernel: Noise | None
    at_output: Noise
    clipped: float
    clipping: float
    range: tuple[float, float] | None
    seen: tuple[float, float]
    per_channel: bool | None = None
    spread: float | None = None
    readers: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[Part, Noise]:
        """The three parts."""
        return {Part.WEIGHTS: self.weights, Part.ACTIVATION: self.activation, Part.KERNEL: self.kernel or Noise()}

    @property
    def blame(self) -> Part:
        """The part with the most noise."""
        return max(self.parts, key=lambda part: self.parts[part].noise)

    @property
    def own(self) -> Noise:
        """The three parts together."""
        return Noise(self.weights.signal, sum(each.noise for each in self.parts.values()))

    @property
    def is_layer(self) -> bool:
        """Whether it has weights."""
        return self.weight_bits is not None

    def share(self, part: Part) -> float:
        """A part's share of the layer's own noise, 0 to 1."""
        return self.parts[part].noise / self.own.noise if self.own.noise else 0.0


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A change of the recipe that may mend a layer, and why.

    `line` is the line as it stands in a recipe, below the table `table`, and `key` and `value` the same for a program;
    a key may hold names with dots. They are empty where no line of a recipe mends it.
    """

    layer: str
    reason: str
    table: str = ""
    line: str = ""
    key: tuple[str | int, ...] = ()
    value: Json = None


@dataclass(frozen=True, kw_only=True)
class Why:
    """All that was found of one file.

    `layers` are in the order of the network. `outputs` are the file's against the float program's, `agreement` the
    share of images for which the task takes both answers for the same. `tap_changes` is the largest difference between
    the outputs of the file and those of the copy that shows its inner values; 0 where looking changed nothing.
    """

    edgeopt: str
    file: str
    run: str
    runtime: str
    precision: str
    images: int
    layers: tuple[LayerNoise, ...]
    outputs: tuple[OutputNoise, ...]
    agreement: float
    tap_changes: float
    how: str
    unseen: tuple[str, ...] = ()
    advice: tuple[Advice, ...] = ()
    finished: str | None = None
    schema: int = SCHEMA

    @property
    def answers(self) -> Noise:
        """The noise of all outputs."""
        return together([each.noise for each in self.outputs])

    @property
    def worst_first(self) -> Sequence[LayerNoise]:
        """The layers by what their own errors do to the outputs, the worst first."""
        return sorted(self.layers, key=lambda layer: -layer.at_output.noise)

    def share_at_output(self, layer: LayerNoise) -> float:
        """A layer's share of what all layers' own errors do to the outputs, 0 to 1."""
        whole = sum(each.at_output.noise for each in self.layers)
        return layer.at_output.noise / whole if whole else 0.0

    def to_json(self) -> str:
        """The findings as stable, indented JSON, with signal to noise in dB beside the sums."""
        from pydantic_core import to_json  # only whoever writes one needs it

        values = to_json(_told(self), indent=2, inf_nan_mode="strings").decode()
        return values + "\n"


def _told(why: Why) -> dict[str, object]:
    from dataclasses import asdict

    values = asdict(why)
    for told, layer in zip(values["layers"], why.layers, strict=True):
        for name in ("total", "weights", "activation", "kernel", "at_output"):
            told[name] = _sums(getattr(layer, name))
        told["own_sqnr_db"] = layer.own.db
        told["blame"] = layer.blame
        told["share_at_output"] = why.share_at_output(layer)
    values["outputs"] = {each.name: _sums(each.noise) for each in why.outputs}
    return values


def _sums(noise: Noise | None) -> dict[str, float | None] | None:
    return None if noise is None else {"signal": noise.signal, "noise": noise.noise, "sqnr_db": noise.db}
