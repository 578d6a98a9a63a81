"""The network of a package, read back by coremltools from the message and the constants that were written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.plugins import ExportError, TensorInfo
from edgeopt_coreml.package import tensors_of
from edgeopt_coreml.tools import coremltools as coremltools  # noqa: PLC0414 - which hides what its parts look for

_LAYOUT = ("reshape", "transpose", "expand_dims", "squeeze")
_WEIGHTS = {"conv": "weight", "conv_transpose": "weight", "linear": "weight", "matmul": "y"}
_REPLACE = "replace what it stands for in the model, or leave this export out"


@dataclass(frozen=True)
class FileLayer:
    """A layer of a network: its module, "" where nobody knows, and whether its weight, or its weight and what enters
    it, are integers.
    """

    module: str
    has_integer_weight: bool
    is_integer: bool


def read_operators(spec: Any, weights: Path) -> list[Any]:
    """The operators of a network in order, its constants among them, as coremltools has them; `weights` is the folder
    of the file that holds the large ones.
    """
    from coremltools.converters.mil.frontend.milproto.load import load

    program = load(spec, spec.specificationVersion, file_weights_dir=str(weights))
    return list(program.functions["main"].operations)


def check_graph(
    spec: Any, weights: Path, tensors: tuple[TensorInfo, tuple[TensorInfo, ...]], modules: Mapping[str, str]
) -> tuple[list[FileLayer], dict[str, int]]:
    """The layers of a network, and how many operators of each kind it has; `tensors` are the input and the outputs that
    it must have, `modules` those of its layers as `convert` tells them.

    Raises `ExportError` where it has others, and where it loops, branches or has sizes that are known only when it
    runs.
    """
    if (found := tensors_of(spec)) != tensors:
        raise ExportError(f"coremltools made a network of {found} from one of {tensors}", hint=_REPLACE)
    operators = read_operators(spec, weights)
    for each in operators:
        if each.blocks or not all(isinstance(size, (int, np.integer)) for one in each.outputs for size in one.shape):
            raise ExportError(f"{each.op_type} {each.name!r} has no fixed size in the network", hint=_REPLACE)
    kinds = Counter(each.op_type for each in operators if each.op_type != "const")
    return list(_layers(operators, modules)), dict(sorted(kinds.items()))


def _layers(operators: Iterable[Any], modules: Mapping[str, str]) -> Iterator[FileLayer]:
    for each in operators:
        weight = each.inputs[_WEIGHTS[each.op_type]] if each.op_type in _WEIGHTS else None
        if weight is None or weight.op is None or not weight.op.op_type.startswith("const"):
            continue
        entering = each.inputs["x"]
        while entering.op is not None and entering.op.op_type in _LAYOUT:
            entering = entering.op.inputs["x"]
        module = max((name for name in modules if weight.name.startswith(name)), key=len, default="")
        has_integer_weight = weight.op.op_type != "const"
        is_integer = has_integer_weight and entering.op is not None and entering.op.op_type == "dequantize"
        yield FileLayer(modules.get(module, ""), has_integer_weight, is_integer)
