"""A faster lowering, to the same file: what ExecuTorch and torch do again and again for one graph, done once.

Each context manager changes how a library walks through graphs, within the block alone, and does nothing where the
library has no such attribute: another version lowers more slowly then, to the same file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from executorch.backends.xnnpack import _passes
from executorch.backends.xnnpack.partition.graphs import bilinear_2d, sdpa
from executorch.exir import pass_base, pass_manager
from executorch.exir.pass_base import ExportPass
from torch._subclasses import FakeTensor
from torch.fx import Graph, GraphModule, Interpreter


@contextmanager
def quick_lowering(graph: Graph) -> Iterator[None]:
    """Within, `graph` is lowered to the same file in less time."""
    with patterns_of(graph), known_values(), known_graphs(), one_check():
        yield


@contextmanager
def patterns_of(graph: Graph) -> Iterator[None]:
    """Within, resizing and attention are looked for only where `graph` has operators of that kind.

    The lowering makes the patterns anew in each process by exporting small models, a fifth of the time of a small
    export.
    """
    names = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    with ExitStack() as stack:
        if hasattr(bilinear_2d, "get_graphs_dict") and not any("upsample" in name for name in names):
            stack.enter_context(patch.object(bilinear_2d, "get_graphs_dict", dict))
        if hasattr(sdpa, "get_graphs") and not any("softmax" in name or "attention" in name for name in names):
            stack.enter_context(patch.object(sdpa, "get_graphs", list))
        yield


class _Remembering:
    """An interpreter that asks for the result of an operator on the same values only once.

    Within one walk, a result is given to one node only: two nodes never share a value.
    """

    def __init__(self, interpreter: Interpreter, results: dict[object, tuple[object, object]]) -> None:
        self._interpreter, self._results, self._given = interpreter, results, set[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._interpreter, name)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        schema = getattr(target, "_schema", None)
        tags = getattr(target, "tags", ())
        varies = torch.Tag.data_dependent_output in tags or torch.Tag.dynamic_output_shape in tags
        if schema is None or schema.is_mutable or varies:
            return self._interpreter.call_function(target, args, kwargs)
        found: list[FakeTensor] = []
        try:
            key = (target, _key(args, found), _key(kwargs, found))
            known = self._results.get(key)
        except TypeError:  # an argument that cannot be compared, as a size that is not known yet
            return self._interpreter.call_function(target, args, kwargs)
        if known is not None and id(known[0]) not in self._given:
            result = known[0]
        else:
            result = self._interpreter.call_function(target, args, kwargs)
            if found:
                self._results[key] = (result, found)  # who holds the arguments too keeps their identities from others
        self._given.add(id(result))
        return result


def _key(value: Any, found: list[FakeTensor]) -> object:
    """What a value is told from others by; fake tensors by identity, which are added to `found`.

    Raises TypeError for tensors of other kinds.
    """
    if isinstance(value, FakeTensor):
        found.append(value)
        return id(value)
    if isinstance(value, list | tuple):
        return tuple(_key(each, found) for each in value)
    if isinstance(value, dict):
        return tuple((name, _key(each, found)) for name, each in value.items())
    if isinstance(value, torch.Tensor | torch.SymInt | torch.SymFloat | torch.SymBool):
        raise TypeError
    return type(value), value


@contextmanager
def known_values() -> Iterator[None]:
    """Within, a pass over a graph computes shapes and types only behind what the passes before it changed."""
    base: Any = getattr(pass_base, "_ExportPassBase", None)
    if not hasattr(base, "_fx"):
        yield
        return
    results: dict[object, tuple[object, object]] = {}
    walk = base._fx  # noqa: SLF001

    def remembering(self: Any, *arguments: Any) -> Any:
        if type(self.interpreter) is Interpreter:
            self.interpreter = _Remembering(self.interpreter, results)
        return walk(self, *arguments)

    with patch.object(base, "_fx", remembering):
        yield


_HOOKLESS = {"call", "requires", "ensures", "_abc_impl"}
"""Names that a pass may define and still only walks over the graph in `ExportPass.call`."""


def _only_walks(one: type) -> bool:
    before = one.__mro__[: one.__mro__.index(ExportPass)]
    names = {name for each in before for name in vars(each) if not name.startswith("__")}
    hooks = {name for each in ExportPass.__mro__ for name in vars(each)} - _HOOKLESS
    return not names & hooks


def _print(graph: Graph) -> list[tuple[object, ...]]:
    """What a graph is told from what it was before by, values by identity."""
    return [
        (node, node.op, node.name, node.target, node.args, node.kwargs, _identities(node.meta.get("val")))
        for node in graph.nodes
    ]


def _identities(value: object) -> object:
    return tuple(map(_Same, value)) if isinstance(value, list | tuple) else _Same(value)


class _Same:
    """Equal to what holds the same object."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    __hash__ = None  # type: ignore[assignment]


@contextmanager
def known_graphs() -> Iterator[None]:
    """Within, a pass that walks over a graph to find shapes and types leaves one that came from such a walk as it is.

    A second walk over it returns its copy.
    """
    if not hasattr(ExportPass, "call_submodule"):
        yield
        return
    walk = ExportPass.call_submodule
    prints: dict[Graph, list[tuple[object, ...]]] = {}

    def call_submodule(self: Any, module: GraphModule, inputs: tuple[Any, ...]) -> Any:
        known = prints.get(module.graph)
        if known is not None and _only_walks(type(self)) and known == _print(module.graph):
            given = [_Same(value) for value in self.inputs(module)]
            if given == [_Same(value) for value in inputs]:
                return pass_base.PassResult(module, True)
        result = walk(self, module, inputs)
        prints[result.graph_module.graph] = _print(result.graph_module.graph)
        return result

    with patch.object(ExportPass, "call_submodule", call_submodule):
        yield


@contextmanager
def one_check() -> Iterator[None]:
    """Within, what XNNPACK's passes make of a graph is checked once, not before and after each pass."""
    manager: Any = getattr(_passes, "XNNPACKPassManager", None)
    checked: Any = getattr(pass_manager, "ExportedProgramPassManager", None)
    if not hasattr(manager, "transform") or not hasattr(checked, "check"):
        yield
        return
    transform, check = manager.transform, checked.check

    def transform_then_check(self: Any) -> Any:
        with patch.object(checked, "check", lambda _self, _program: None):
            program = transform(self)
        check(checked([]), program)
        return program

    with patch.object(manager, "transform", transform_then_check):
        yield
