"""A network as ncnn has it: a list of layers in text, and their weights one after the other in the `.bin`.

Source: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure
"""

from __future__ import annotations

from dataclasses import dataclass, field

WEIGHTED = ("Convolution", "ConvolutionDepthWise", "InnerProduct")
"""Types of layers that multiply by a weight."""
INT8_TERM = 8
"""The number of the parameter that such a layer has in int8 alone."""
_MAGIC = "7767517"
_ARRAY = -23300  # of which the number of a parameter is taken, where it is an array


@dataclass
class Layer:
    """A line: the layer's type and name, the blobs that it reads and writes, and its parameters by number."""

    type: str
    name: str
    reads: list[str]
    writes: list[str]
    parameters: dict[int, str] = field(default_factory=dict)

    def number(self, key: int, default: int = 0) -> int:
        """A parameter that is an integer."""
        return int(self.parameters.get(key, default))

    def set_array(self, key: int, *values: str) -> None:
        """Sets a parameter that is a list of numbers."""
        self.parameters[_ARRAY - key] = ",".join([str(len(values)), *values])

    def __str__(self) -> str:
        blobs = [str(len(self.reads)), str(len(self.writes)), *self.reads, *self.writes]
        given = [f"{key}={value}" for key, value in self.parameters.items()]
        return " ".join([f"{self.type:<24}", f"{self.name:<24}", *blobs, *given])


class Graph:
    """The layers of a network, in the order in which they run."""

    def __init__(self, text: str) -> None:
        """Reads the text of a `.param`."""
        _, _, *lines = text.splitlines()
        self.layers = [_layer(line) for line in lines]

    def readers(self, blob: str) -> list[Layer]:
        """The layers that read a blob."""
        return [each for each in self.layers if blob in each.reads]

    def rename(self, names: dict[str, str]) -> None:
        """Gives blobs other names."""
        for each in self.layers:
            each.reads = [names.get(blob, blob) for blob in each.reads]
            each.writes = [names.get(blob, blob) for blob in each.writes]

    def text(self) -> str:
        """The text of a `.param`."""
        blobs = {blob for each in self.layers for blob in each.writes}
        return "\n".join([_MAGIC, f"{len(self.layers)} {len(blobs)}", *map(str, self.layers), ""])


def _layer(line: str) -> Layer:
    kind, name, reads, writes, *rest = line.split()
    blobs, given = rest[: int(reads) + int(writes)], rest[int(reads) + int(writes) :]
    parameters = {int(key): value for key, _, value in (each.partition("=") for each in given)}
    return Layer(kind, name, blobs[: int(reads)], blobs[int(reads) :], parameters)
