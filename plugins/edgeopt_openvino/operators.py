"""What OpenVINO makes of a file on this machine: its operators, what they stand for in the file, and their times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

import openvino

from edgeopt.plugins import OperatorTime, OperatorTimesRequest
from edgeopt_openvino.on_device import open_model

WEIGHTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")


@dataclass(frozen=True)
class Operator:
    """One that OpenVINO runs: its name and kind, the kernel, and the operators of the file that it stands for."""

    name: str
    kind: str
    kernel: str
    stands_for: frozenset[str]

    @property
    def is_integer(self) -> bool:
        """Whether the kernel, whose name ends with the type of what it multiplies, does so with integers."""
        return self.kernel.lower().endswith(("_i8", "_u8"))


def operators_of(opened: openvino.CompiledModel) -> Iterator[Operator]:
    """The operators in the order in which they are called."""
    for node in opened.get_runtime_model().get_ordered_ops():
        said = node.get_rt_info()
        kind, kernel, names = (said[key].astype(str) for key in ("layerType", "primitiveType", "originalLayersNames"))
        if kind not in ("Const", "Input", "Output"):
            yield Operator(node.get_friendly_name(), kind, kernel, _own_names(names.split(",")))


def layers_of(model: openvino.Model) -> dict[frozenset[str], str]:
    """The module of each operator with constant weights, "" where nobody knows, by its name and that of its bias."""
    layers = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() in WEIGHTED and (weight := constant_behind(node)):
            module, is_called_so, _ = weight.get_friendly_name().partition(".weight")
            readers = [each.get_node() for each in node.output(0).get_target_inputs()]
            biased = [each for each in readers if each.get_type_name() == "Add" and constant_behind(each)]
            names = _own_names(each.get_friendly_name() for each in (node, *biased))
            layers[names] = module if is_called_so else ""
    return layers


def constant_behind(node: openvino.Node) -> openvino.Node | None:
    """The constant, if any, that a node's second input is made of; what else is on the way are scales and shapes."""
    node = node.input_value(1).get_node()
    while node.get_input_size():
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "Constant" else None


def _own_names(names: Iterable[str]) -> frozenset[str]:
    """What operators were called before OpenVINO took them apart: it calls the parts after them, behind a slash."""
    return frozenset(name.partition("/")[0] for name in names if name)


def operator_times(request: OperatorTimesRequest) -> list[OperatorTime]:
    """The operators in the order in which they are called, by OpenVINO's own counters."""
    model, opened = open_model(request.path, request.threads, PERF_COUNT=True)
    layers, asked, took = layers_of(model), opened.create_infer_request(), dict[str, list[float]]()
    for call in range(request.warmup + request.runs):
        asked.infer([request.batch])
        for each in asked.get_profiling_info() if call >= request.warmup else ():
            if each.status == each.Status.EXECUTED:
                took.setdefault(each.node_name, []).append(each.real_time.total_seconds() * 1e3)
    return [
        OperatorTime(each.name, each.kind, median(took[each.name]), _module(each, layers))
        for each in operators_of(opened)
        if each.name in took
    ]


def _module(operator: Operator, layers: dict[frozenset[str], str]) -> str:
    return next((module for names, module in layers.items() if names & operator.stands_for), "")
