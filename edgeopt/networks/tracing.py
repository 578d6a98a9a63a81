"""A faster walk of torch through graphs, to the same result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from edgeopt.networks.deferred_code import deferred_code

if TYPE_CHECKING:  # torch is heavy: whoever traces has imported it already
    from torch._ops import OpOverload


@contextmanager
def quick_tracing() -> Iterator[None]:
    """Inside this context, torch walks through graphs without six habits that take half of an int8 export's time.

    The files differ in debug handles and in the numbers of names at most. torch writes out each graph as Python
    whenever it changed, and notes for each node where in Python it was made. It keeps all ancestors of a node, copied
    deeply at each of the dozens of walks. Nothing here reads them; the module path of a node is kept elsewhere. It
    remembers what its own operators return for which shapes and types, but not what quantize and dequantize do, which
    are half of an int8 program. It goes through all its operators once for each library of operators that there is. And
    it has no word for the shape of a hard swish: each walk computes one from sums and bounds, the batch as a symbol.
    """
    with ExitStack() as stack:
        for without in (
            deferred_code,
            _no_stack_traces,
            _no_ancestors,
            _known_results,
            _operators_listed_once,
            _hard_swish_at_once,
        ):
            stack.enter_context(without())
        yield


# torch has a switch for one of the six. In another torch that lacks what is patched here, the walks are as they are:
# slower, and the files the same.


@contextmanager
def _no_stack_traces() -> Iterator[None]:
    from unittest.mock import patch

    from torch.fx import config

    if not hasattr(config, "do_not_emit_stack_traces"):
        yield
        return
    with patch.object(config, "do_not_emit_stack_traces", True):
        yield


@contextmanager
def _no_ancestors() -> Iterator[None]:
    from unittest.mock import patch

    from torch.fx import traceback

    if not hasattr(traceback, "NodeSource"):
        yield
        return

    class Orphan(traceback.NodeSource):
        def __init__(
            self, _node: object, pass_name: str = "", action: traceback.NodeSourceAction | None = None
        ) -> None:
            super().__init__(None, pass_name, action)

    with patch.object(traceback, "NodeSource", Orphan):
        yield


@contextmanager
def _known_results() -> Iterator[None]:
    from unittest.mock import patch

    from torch._subclasses import fake_tensor

    refuse = getattr(fake_tensor.FakeTensorMode, "_validate_cache_key", None)
    if refuse is None:
        yield
        return

    def remember(mode: fake_tensor.FakeTensorMode, operator: OpOverload, *arguments: Any) -> None:
        try:
            refuse(mode, operator, *arguments)
        except fake_tensor._BypassDispatchCache as bypass:  # noqa: SLF001
            # The last of its reasons that could hold for an operator which changes nothing and returns a new tensor.
            if bypass.reason != "non-builtin" or operator.namespace != "quantized_decomposed":
                raise

    with patch.object(fake_tensor.FakeTensorMode, "_validate_cache_key", remember):
        yield


@contextmanager
def _operators_listed_once() -> Iterator[None]:
    from unittest.mock import patch

    import torch
    from torch._export import utils

    make_known = getattr(utils, "_materialize_cpp_cia_ops", None)
    listed = getattr(torch._C, "_dispatch_get_registrations_for_dispatch_key", None)  # noqa: SLF001
    if make_known is None or listed is None:
        yield
        return
    known: list[str] = []

    def make_new_ones_known() -> None:
        there = listed("CompositeImplicitAutograd")
        if there != known:  # at first, and when a library was loaded since
            make_known()
            known[:] = there

    with patch.object(utils, "_materialize_cpp_cia_ops", make_new_ones_known):
        yield


@contextmanager
def _hard_swish_at_once() -> Iterator[None]:
    from unittest.mock import patch

    import torch

    meta = torch._C.DispatchKey.Meta  # noqa: SLF001
    known = {
        torch.ops.aten.hardswish.default: torch.empty_like,
        torch.ops.aten.hardswish_.default: lambda self: self,
    }
    with ExitStack() as stack:
        for operator, shape in known.items():
            kernels, chosen = getattr(operator, "py_kernels", {}), getattr(operator, "_dispatch_cache", None)
            if meta not in kernels or chosen is None:
                continue
            stack.callback(chosen.clear)  # the kernels that were chosen within, after the old one is back
            stack.enter_context(patch.dict(kernels, {meta: shape}))
            chosen.clear()
        yield
