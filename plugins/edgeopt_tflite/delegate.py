"""How much of a file XNNPACK takes, as the runtime itself divides it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from edgeopt.plugins import ExportError

_DELEGATE = "DELEGATE"
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")


@dataclass(frozen=True)
class Delegation:
    """The operators of a file, by who runs them; conversions between types are not counted."""

    operators: int
    delegated: int
    partitions: int
    outside: tuple[str, ...]
    """Kinds of all operators that LiteRT's own kernels run, conversions too, with their counts."""

    @property
    def share(self) -> float:
        """Share of the operators that XNNPACK runs, 0..1."""
        return self.delegated / self.operators if self.operators else 1.0


def delegation(content: bytes) -> Delegation:
    """Opens a file as a predictor does and reads how it was divided.

    Raises `ExportError` when LiteRT has no kernel for what is in it.
    """
    try:
        interpreter = Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ExportError(
            f"LiteRT cannot open the file that was made: {error}",
            hint="replace the operator in the model, or leave this export out",
        ) from error
    operators = interpreter._get_ops_details()  # noqa: SLF001 - the only way to see the delegates
    partitions = [operator for operator in operators if operator["op_name"] == _DELEGATE]
    plain = [operator for operator in operators if operator["op_name"] != _DELEGATE]
    producers = {int(tensor): operator for operator in plain for tensor in operator["outputs"]}
    inside = {index for partition in partitions for index in _members(partition, producers)}
    outside = Counter(operator["op_name"] for operator in plain if operator["index"] not in inside)
    compute = [operator for operator in plain if operator["op_name"] not in _CONVERSIONS]
    return Delegation(
        operators=len(compute),
        delegated=sum(operator["index"] in inside for operator in compute),
        partitions=len(partitions),
        outside=tuple(f"{count} x {kind}" if count > 1 else kind for kind, count in sorted(outside.items())),
    )


def _members(partition: dict[str, Any], producers: dict[int, dict[str, Any]]) -> set[int]:
    """The operators that a partition replaces: all on the ways back from its outputs to its inputs."""
    given = set(map(int, partition["inputs"]))
    waiting, members = [int(tensor) for tensor in partition["outputs"]], set()
    while waiting:
        tensor = waiting.pop()
        if tensor in given or tensor not in producers or producers[tensor]["index"] in members:
            continue
        members.add(producers[tensor]["index"])
        waiting += [int(source) for source in producers[tensor]["inputs"] if source >= 0]
    return members
