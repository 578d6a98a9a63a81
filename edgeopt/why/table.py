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
    - `at_output`: the logits of the float program when the sum of these three errors is added to y, minus its logits.

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

    `layers` are in the order of the network. `logits` are the file's answers against the float program's, `agreement`
    the share of images on which both have the same top answer. `tap_changes` is the largest difference between the
    logits of the file and those of the copy that shows its inner values; 0 where looking changed nothing.
    """

    edgeopt: str
    file: str
    run: str
    runtime: str
    precision: str
    images: int
    layers: tuple[LayerNoise, ...]
    logits: Noise
    agreement: float
    tap_changes: float
    how: str
    unseen: tuple[str, ...] = ()
    advice: tuple[Advice, ...] = ()
    finished: str | None = None
    schema: int = SCHEMA

    @property
    def worst_first(self) -> Sequence[LayerNoise]:
        """The layers by what their own errors do to the logits, the worst first."""
        return sorted(self.layers, key=lambda layer: -layer.at_output.noise)

    def share_at_output(self, layer: LayerNoise) -> float:
        """A layer's share of what all layers' own errors do to the logits, 0 to 1."""
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
            noise: Noise | None = getattr(layer, name)
            told[name] = None if noise is None else {"signal": noise.signal, "noise": noise.noise, "sqnr_db": noise.db}
        told["own_sqnr_db"] = layer.own.db
        told["blame"] = layer.blame
        told["share_at_output"] = why.share_at_output(layer)
    values["logits"] = {"signal": why.logits.signal, "noise": why.logits.noise, "sqnr_db": why.logits.db}
    return values
