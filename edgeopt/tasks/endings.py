"""How files may end behind their network: what a task hands to exporters, which know no task. Light."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

OUTPUTS = "outputs"
"""What `ends` of an export says of a file that ends at its network's outputs."""


@dataclass(frozen=True)
class OnnxTail:
    """Last operators of an `.onnx` file: the bytes of a model whose inputs are, in their order, what the program
    returns, and whose outputs are the file's. Its operators mean the same in every operator set from 17 to 23, or are
    of another domain, which it names; no name of a value in it is one of a converted program: they begin with
    "ending/", but for the outputs.
    """

    model: bytes


@dataclass(frozen=True, eq=False)
class TfliteTail:
    """The last operator of a `.tflite` file, one that LiteRT knows by the name `operator` alone.

    `options` are its own, a flexbuffer. It takes what the program returns, in that order, and then `constants`, arrays;
    it gives float32 tensors of `shapes`.
    """

    operator: str
    options: bytes
    constants: tuple[Any, ...]
    shapes: tuple[tuple[int, ...], ...]


Tail = OnnxTail | TfliteTail


class Ending(ABC):
    """What a file can end at instead of its network's outputs; a task makes it, see `Task.ending`.

    Layers of PyTorch go behind the program, so that any exporter takes them. What these cannot say is a tail in the
    file's own format, for exporters that take one: `form` is the format whose tails an exporter takes, "onnx", "tflite"
    or "tensorrt" (an `OnnxTail` that may have TensorRT's own operators), and "" where it takes none.
    """

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs of such a file."""

    @property
    def taken(self) -> tuple[str, ...]:
        """Names of what the layers give to the tail, where there are both."""
        return self.outputs

    @abstractmethod
    def refused(self, form: str, classes: int | None) -> str | None:
        """Why files of a form cannot end so, as a sentence; None where they can. `classes` is how many the data set
        has, None where nobody knows yet. Light.
        """

    def layers(self, form: str) -> nn.Module | None:  # noqa: ARG002 - by default there are none
        """What goes behind the program: it takes the network's outputs, and gives those of the file, or what the tail
        takes. None for nothing.
        """
        return None

    def tail(self, form: str) -> Tail | None:  # noqa: ARG002 - as above
        """The last operators in the file's own format; None where layers alone do it."""
        return None
