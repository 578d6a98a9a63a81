"""What coremltools converts of a program, operator by operator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgeopt.export.predictor import quiet
from edgeopt.export.refusals import place_of, unsupported
from edgeopt.plugins import AcceleratorAnswer, AskedOperator, ExportError, Problem, Verdict, installed_version
from edgeopt_coreml.rewrites.prepared import Prepared, prepare
from edgeopt_coreml.tools import coremltools as coremltools  # noqa: PLC0414 - which hides what its parts look for

if TYPE_CHECKING:
    from torch.fx import Node

    from edgeopt.plugins import AcceleratorRequest, ModelState

_SOURCE = f"coremltools {installed_version('coremltools')}"
_REASON = f"{_SOURCE} does not convert it"


def require_converted(prepared: Prepared) -> None:
    """Raises `ExportError` naming the operators, with their modules, that Core ML has not."""
    if places := [place_of(node) for node in prepared.operators if not _is_converted(node)]:
        raise unsupported("Core ML", places, _REASON)


def refused(state: ModelState) -> Iterable[Problem]:
    """What speaks against a network that nothing has trained yet: operators that Core ML has not."""
    try:
        with quiet():
            require_converted(prepare(state))
    except ExportError as error:
        return error.problems
    return ()


def ask(request: AcceleratorRequest) -> AcceleratorAnswer:
    """Which operators of a program coremltools converts: a file has all of them or is not made, and Core ML decides on
    the device which of its processors runs each.
    """
    with quiet():
        verdicts = tuple(map(_verdict, prepare(request.state).operators))
    return AcceleratorAnswer(verdicts, int(all(each.verdict is Verdict.RUNS for each in verdicts)), _SOURCE)


def _is_converted(node: Node) -> bool:
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    return _TORCH_OPS_REGISTRY.get_func(node.target.name()) is not None  # type: ignore[union-attr]  # of an operator


def _verdict(node: Node) -> AskedOperator:
    place, runs = place_of(node), _is_converted(node)
    kind = place.operator.removeprefix("quantized_decomposed.")
    return AskedOperator(kind, *((Verdict.RUNS, "") if runs else (Verdict.REFUSED, _REASON)), place.module_path)
