"""What OpenVINO makes of a file on this machine: its operators, the layers that it computes in integers, and times.

OpenVINO rewrites a graph when it opens it, and says of each operator which ones of the file it stands for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

import openvino

from edgeopt.plugins import OperatorTime, OperatorTimesRequest
from edgeopt_openvino.files import open_model

WEIGHTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
"""Operators that multiply by weights."""
_NO_WORK = ("Const", "Input", "Output")
_MS = 1e3  # in a second


@dataclass(frozen=True)
class Operator:
    """One that OpenVINO runs: its name and kind, the kernel, and the operators of the file that it stands for."""

    name: str
    kind: str
    kernel: str
    stands_for: tuple[str, ...]

    @property
    def is_integer(self) -> bool:
        """Whether the kernel, whose name ends with the type of what it multiplies, does so with integers."""
        return self.kernel.endswith(("_I8", "_U8"))


def operators_of(opened: openvino.CompiledModel) -> Iterator[Operator]:
    """The operators in the order in which they are called."""
    for node in opened.get_runtime_model().get_ordered_ops():
        said = node.get_rt_info()
        kind, kernel, names = (said[key].astype(str) for key in ("layerType", "primitiveType", "originalLayersNames"))
        if kind not in _NO_WORK:
            # what OpenVINO makes of one operator on the way is called after it, with a slash
            stands_for = tuple(name.partition("/")[0] for name in names.split(",") if name)
            yield Operator(node.get_friendly_name(), kind, kernel, stands_for)


def modules_of(model: openvino.Model) -> dict[str, str]:
    """The module that each operator with constant weights computes, by the operator's name; "" where nobody knows."""
    modules = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() in WEIGHTED:
            weight = node.input_value(1).get_node()
            while weight.get_input_size():
                weight = weight.input_value(0).get_node()  # further inputs are scales, zero points and shapes
            if weight.get_type_name() == "Constant":
                module, is_called_so, _ = weight.get_friendly_name().partition(".weight")
                modules[node.get_friendly_name().partition("/")[0]] = module if is_called_so else ""
    return modules


def operator_times(request: OperatorTimesRequest) -> list[OperatorTime]:
    """The operators in the order in which they are called, by OpenVINO's own counters."""
    model, opened = open_model(request.path, request.threads, PERF_COUNT=True)
    modules = modules_of(model)
    asked = opened.create_infer_request()
    took: dict[str, list[float]] = {}
    for call in range(request.warmup + request.runs):
        asked.infer([request.batch])
        for each in asked.get_profiling_info() if call >= request.warmup else ():
            if each.status == each.Status.EXECUTED:
                took.setdefault(each.node_name, []).append(each.real_time.total_seconds() * _MS)
    times = []
    for each in operators_of(opened):
        if each.name in took:
            layer = next((modules[name] for name in each.stands_for if modules.get(name)), "")
            times.append(OperatorTime(each.name, each.kind, median(took[each.name]), layer))
    return times
