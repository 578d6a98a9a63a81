"""A captured program as a list of functional calls.

An operator that writes into its argument is replaced by its twin that returns a new tensor, so that what one run
computes never reaches another, and many can run at once from the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg

from edgeopt.errors import ExportError

Values = dict[Node, Any]


@dataclass(frozen=True, eq=False)
class Call:
    """One call, and the values that nothing reads after it."""

    node: Node
    operator: Callable[..., Any]
    args: Any
    kwargs: Any
    done_with: tuple[Node, ...] = ()

    @cached_property
    def reads(self) -> frozenset[Node]:
        """The values that it is given."""
        found: list[Node] = []

        def note(node: Node) -> Node:
            found.append(node)
            return node

        map_arg((self.args, self.kwargs), note)
        return frozenset(found)


@dataclass(frozen=True, eq=False)
class Code:
    """All calls in order, the value that they start from, those that they end with, and the values that are the same
    for every image.
    """

    input: Node
    outputs: tuple[Node, ...]
    calls: tuple[Call, ...]
    constants: Values


def calls_of(program: ExportedProgram) -> Code:
    """The calls of a program of one input; what depends on no image is computed here, once.

    Raises `ExportError` for other programs.
    """
    module = program.module(check_guards=False)
    if not _writes_can_be_replaced(module.graph.nodes):
        module = program.run_decompositions({}).module(check_guards=False)  # torch's own way, which takes seconds
    inputs, outputs, calls = [], [], []
    constants: Values = {}
    instead: dict[Node, Node] = {}  # a value that is written into, and what it becomes

    def read(node: Node) -> Node:
        while node in instead:
            node = instead[node]
        return node

    with torch.no_grad():
        for node in module.graph.nodes:
            match node.op:
                case "placeholder":
                    inputs.append(node)
                case "get_attr":
                    constants[node] = _attribute(module, str(node.target))
                case "output":
                    outputs = [read(each) for each in _returned(node)]
                case "call_function":
                    twin = _twin(node.target)
                    call = Call(node, twin or node.target, map_arg(node.args, read), map_arg(node.kwargs, read))
                    if call.reads and call.reads <= constants.keys():
                        args, kwargs = map_arg((call.args, call.kwargs), constants.__getitem__)
                        constants[node] = call.operator(*args, **kwargs)
                    else:
                        calls.append(call)
                    if twin:
                        instead[read(_first(node))] = node
                case _:
                    raise ExportError(f"the program calls {node.target}, which is no operator")
    if len(inputs) != 1 or not outputs:
        raise ExportError(
            f"the program turns {len(inputs)} tensors into {len(outputs)}, not one into its outputs",
            hint="capture it with `edgeopt.networks.capture.capture`",
        )
    return Code(inputs[0], tuple(outputs), _with_lifetimes(calls, outputs), constants)


def _returned(output: Node) -> list[Node]:
    """The values that a program returns, in its order, one that stands twice among them twice."""
    found: list[Node] = []

    def note(node: Node) -> Node:
        found.append(node)
        return node

    map_arg(output.args, note)
    return found


def _attribute(module: torch.nn.Module, target: str) -> Any:
    holder, _, name = target.rpartition(".")
    value = getattr(module.get_submodule(holder), name)
    return value.detach() if isinstance(value, Tensor) else value


def _with_lifetimes(calls: list[Call], outputs: Collection[Node]) -> tuple[Call, ...]:
    """The calls, each with the values that it is the last to read, or that nobody reads."""
    last: dict[Node, int] = {}
    made = {call.node for call in calls}
    for place, call in enumerate(calls):
        for node in (call.node, *call.reads):
            last[node] = place
    done: list[list[Node]] = [[] for _ in calls]
    for node, place in last.items():
        if node not in outputs and (node in made or node.op == "placeholder"):
            done[place].append(node)
    return tuple(replace(call, done_with=tuple(nodes)) for call, nodes in zip(calls, done, strict=True))


# ---- operators that write into their argument ----------------------------------------------------------------------


def _twin(operator: Any) -> OpOverload | None:
    """The operator that computes the same without writing into its first argument; None where there is none."""
    if not isinstance(operator, OpOverload) or not operator._schema.is_mutable:  # noqa: SLF001 - it has no public door
        return None
    namespace, _, name = operator._schema.name.partition("::")  # noqa: SLF001
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None) if name.endswith("_") else None
    overload = getattr(packet, operator._overloadname, None) if packet else None  # noqa: SLF001
    return overload if isinstance(overload, OpOverload) and not overload._schema.is_mutable else None  # noqa: SLF001


def _writes_can_be_replaced(nodes: Iterable[Node]) -> bool:
    """Whether every writing operator has a twin, and nobody reads what it wrote through a view."""
    order = {node: place for place, node in enumerate(nodes)}
    for node, place in order.items():
        if not _writes(node):
            continue
        written = _connected(_first(node), _writes)
        aliases = _connected(_first(node), _shares_memory)
        if _twin(node.target) is None or any(alias.op != "call_function" for alias in aliases):
            return False  # without a twin, or it writes into a parameter, a buffer or the input
        earlier = (alias for alias in aliases - written if order[alias] < place)
        if any(order[user] > place for alias in earlier for user in alias.users):
            return False
    return True


def _connected(node: Node, link: Callable[[Node], bool]) -> set[Node]:
    """`node` and all nodes that share its value, where `link` says that a node passes its first argument on."""
    found: set[Node] = set()
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if each in found:
            continue
        found.add(each)
        if link(each):
            waiting.append(_first(each))
        waiting += [user for user in each.users if link(user) and user.args[0] is each]
    return found


def _writes(node: Node) -> bool:
    """Whether a call writes into its first argument, and returns that."""
    schema = _schema(node)
    return schema is not None and schema.is_mutable


def _shares_memory(node: Node) -> bool:
    """Whether the result may be the memory of the first argument."""
    schema = _schema(node)
    return schema is not None and bool(schema.returns) and schema.returns[0].alias_info is not None


def _schema(node: Node) -> Any:
    return node.target._schema if isinstance(node.target, OpOverload) else None  # noqa: SLF001 - it has no public door


def _first(node: Node) -> Node:
    """The first argument of a call that writes into it or returns a view of it."""
    first = node.args[0]
    assert isinstance(first, Node)
    return first
