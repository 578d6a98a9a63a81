"""The card of a file: what an app must know to use it, with images on which the app can check itself.

Importing this module is light.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from edgeopt.arrays import Json
from edgeopt.tasks.stored import DEFAULT as DEFAULT_TASK

# no string of JSON spans lines, so only lists do
_NUMBERS = re.compile(r"\[\n\s+[-+.\deE]+(?:,\n\s+[-+.\deE]+)*\n\s+\]")


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a file.

    `holds` is "values", numbers that stand for themselves or, with `scale` and `zero_point` where their type is an
    integer, for quantized ones; or "pixels", 0 to 255 as a camera gives them, which the file normalizes itself.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    layout: str
    scale: float | None = None
    zero_point: int | None = None
    holds: str = "values"


@dataclass(frozen=True)
class DrawnImage:
    """An image that anybody can draw again from these numbers, with integers alone: `width` × `height` px, RGB.

    With `waves` as (across, down, start), one for each channel, and v = (across · x + down · y + start) mod 512, the
    value at column x and row y is min(255, |v - 256|), and 255 less that where x // tile + y // tile is odd.
    """

    width: int
    height: int
    tile: int
    waves: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Vector:
    """A drawn image with what must come of it.

    `crc32` is that of its pixels after resizing and cutting, as bytes (height, width, channels), and `pixels` holds
    (row, column, red, green, blue), or (row, column, grey), of a few of them, for whoever resizes a little differently.
    `answers` holds (index, logit) of the model that the file was made from: all of them, or the largest and some
    between; of a file with other outputs they are values of the first one, counted as they lie in memory.
    `file_answers` are those of the file itself in its own runtime, at the same indices; they are empty within the file,
    which cannot know them, and where no runtime was at hand.
    """

    image: DrawnImage
    crc32: int
    pixels: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, float], ...]
    file_answers: tuple[float, ...] = ()

    @property
    def expected(self) -> dict[int, float]:
        """Logits by index: the file's own, or the model's where those are not known."""
        values = self.file_answers or tuple(value for _index, value in self.answers)
        return {index: value for (index, _value), value in zip(self.answers, values, strict=True)}


@dataclass(frozen=True)
class SelfTest:
    """Images with known answers, by which an app sees that it feeds its file rightly; `tolerance` is in logits."""

    tolerance: float
    vectors: tuple[Vector, ...]


@dataclass(frozen=True)
class CycleEstimate:
    """What a vendor's compiler expects an image to cost on its `processor`; nothing of it was measured.

    `source` is the compiler with its version and the system that it assumes around the processor. `cycles` are those of
    one image at `clock_mhz`, without the `on_cpu` operators that are left to the CPU beside it. `memory_bytes` is what
    the compiled file takes of each kind of memory.
    """

    processor: str
    source: str
    cycles: int
    clock_mhz: float
    images_per_second: float
    on_cpu: int
    memory_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Footprint:
    """What a file takes of a device that has little: bytes of RAM while it answers, and of flash as it lies there.

    `ram_parts` is the RAM by what holds it. `most_ram` and `most_flash` are the layer that takes most of each, and its
    bytes. `operators` counts the kinds of operators that the runtime on the device must have. `estimate` is there where
    a compiler was asked for one.
    """

    ram_bytes: int
    flash_bytes: int
    ram_parts: Mapping[str, int] = field(default_factory=dict)
    most_ram: tuple[str, int] = ("", 0)
    most_flash: tuple[str, int] = ("", 0)
    operators: Mapping[str, int] = field(default_factory=dict)
    estimate: CycleEstimate | None = None


@dataclass(frozen=True)
class Card:
    """What an app must know to use a file; written beside it as `card.json`, and inside where the format allows.

    `task` is what the file is for: the name of its task, which a card of a classifier leaves out. `decision` is what
    turns outputs into that task's answers and is not in the outputs, as `Task.decision` gives it: a temperature,
    thresholds, how raw heads become boxes; a card without any leaves it out. `footprint` is there where the runtime is
    one of devices with little memory.
    """

    classes: tuple[str, ...]
    preprocessing: Mapping[str, Json]
    runtime: str
    precision: str
    role: str
    recipe: Mapping[str, Json]
    versions: Mapping[str, str]
    input: TensorInfo | None = None
    outputs: tuple[TensorInfo, ...] = ()
    self_test: SelfTest | None = None
    task: str = DEFAULT_TASK
    decision: Mapping[str, Json] = field(default_factory=dict)
    footprint: Footprint | None = None
    schema: int = 1

    def with_tensors(self, input: TensorInfo, outputs: tuple[TensorInfo, ...]) -> Card:
        """This card with the file's own input and outputs filled in."""
        return replace(self, input=input, outputs=outputs)

    def with_file_answers(self, answers: Sequence[Sequence[float]]) -> Card:
        """This card with the file's own answers in its self-test, a list of logits for each image."""
        if self.self_test is None or not answers:
            return self
        vectors = tuple(
            replace(vector, file_answers=tuple(own))
            for vector, own in zip(self.self_test.vectors, answers, strict=True)
        )
        return replace(self, self_test=replace(self.self_test, vectors=vectors))

    def to_json(self) -> str:
        """The card as stable, indented JSON text, with lists of numbers on one line each.

        A file's only output is `output`, an object, as it was before files could have several; these are `outputs`, a
        list.
        """
        values = asdict(self)
        outputs = values.pop("outputs")
        values |= {"outputs": outputs} if len(outputs) > 1 else {"output": outputs[0] if outputs else None}
        if not self.decision:
            del values["decision"]
        if self.footprint is None:
            del values["footprint"]
        elif self.footprint.estimate is None:
            del values["footprint"]["estimate"]
        if self.task == DEFAULT_TASK:
            del values["task"]
        text = json.dumps(values, indent=2, sort_keys=True)
        return _NUMBERS.sub(lambda found: " ".join(found[0].split()).replace("[ ", "[").replace(" ]", "]"), text) + "\n"
