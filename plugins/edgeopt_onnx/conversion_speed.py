"""A faster conversion by torch's exporter, to the same file.

Each context manager changes a library within the block alone, and does nothing where the library has no such attribute:
another version converts more slowly then, to the same file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from onnxscript import rewriter
from onnxscript._internal import values
from torch.onnx._internal.exporter import _registration


@contextmanager
def quick_conversion() -> Iterator[None]:
    """Within, `torch.onnx.export` writes the same file in less time."""
    with _unparsed_functions(), _linear_rules():
        yield


@contextmanager
def _unparsed_functions() -> Iterator[None]:
    """Within, the exporter lists the functions of onnxscript's library without reading their source.

    It parses all 557 for their domain alone, which each knows and nobody asks for: a third of a small export.
    """
    library: Any = getattr(_registration, "onnxscript_apis", None)
    if library is None or not isinstance(vars(values.TracedOnnxFunction).get("function_ir"), property):
        yield
        return

    def functions() -> Any:
        with patch.object(values.TracedOnnxFunction, "function_ir", property(_domain_alone)):
            return library.get_torchlib_ops()

    with patch.object(_registration, "onnxscript_apis", SimpleNamespace(get_torchlib_ops=functions)):
        yield


def _domain_alone(function: values.TracedOnnxFunction) -> SimpleNamespace:
    return SimpleNamespace(domain=function.opset.domain)


@contextmanager
def _linear_rules() -> Iterator[None]:
    """Within, the exporter's optimizer leaves out one rule, the one that turns slices into a split.

    Its pattern has two roots, and for such a rule onnxscript lists the whole graph once for each node: nine tenths of
    the time for a Swin-V2-B.
    """
    if not hasattr(rewriter, "_DEFAULT_REWRITE_RULES"):
        yield
        return
    rules = rewriter._DEFAULT_REWRITE_RULES  # noqa: SLF001 - there is no option
    linear = tuple(rule for rule in rules if rule.name != "SlicesSplit")
    with patch.object(rewriter, "_DEFAULT_REWRITE_RULES", linear):
        yield
