"""A layer that a network calls several times, made into as many layers.

Each call meets activations of its own and needs scales of its own. Quantizers of torchao call a weight done with its first reader and leave
the other calls with float weights; folding a BatchNorm into a weight changes it for every call.
"""

from __future__ import annotations

import re
from collections import Counter

from torch import nn
from torch.fx import GraphModule, Node

from edgeopt.named_tensors import named_tensor, set_named_tensor
from edgeopt_torchao.layers import CONVOLUTIONS, LINEARS

_CALL = re.compile(r"#\d+(?=\.|$)")


def separate_calls(model: GraphModule, *, tied: bool) -> None:
    """Gives every call of a layer after the first a weight and a bias by a name of its own, in place; all of them are parameters.

    Calls on the same input become one. `tied` leaves both names with one parameter, so that training moves them together; else each has a copy.
    """
    seen: set[Node] = set()
    calls: Counter[str] = Counter()
    layers: dict[str, Node] = {}
    for node in list(model.graph.nodes):
        if node.op != "call_function" or node.target not in CONVOLUTIONS | LINEARS:
            continue
        same = layers.setdefault(f"{node.target} {node.args} {node.kwargs}", node)
        if same is not node:
            node.replace_all_uses_with(same)
            model.graph.erase_node(node)
            continue
        for constant in [each for each in node.all_input_nodes if each.op == "get_attr"]:
            name = str(constant.target)
            value = _as_parameter(model, name)
            if constant not in seen:
                seen.add(constant)
                continue
            calls[name] += 1
            other = _other_name(name, calls[name] + 1)
            own_value = value if tied else nn.Parameter(value.detach().clone(), value.requires_grad)
            set_named_tensor(model, other, own_value)
            with model.graph.inserting_before(node):
                own = model.graph.get_attr(other)
            own.meta = dict(constant.meta)
            node.replace_input_with(constant, own)
    model.recompile()


def name_without_call(name: str) -> str:
    """The name that a layer or parameter has in the model, whichever of its calls is meant."""
    return _CALL.sub("", name)


def _other_name(name: str, call: int) -> str:
    """What "block.conv.weight" is called for the second call: "block.conv#2.weight".

    No attribute that a user writes has a # in its name; @ would mean something else to torch, which assigns to all calls at once.
    """
    holder, _, attribute = name.rpartition(".")
    return f"{holder}#{call}.{attribute}" if holder else f"{attribute}#{call}"


def _as_parameter(model: GraphModule, name: str) -> nn.Parameter:
    """The weight or bias of this name, which folding a BatchNorm and training take for a parameter, and which a computed one is not."""
    value = named_tensor(model, name)
    if isinstance(value, nn.Parameter):
        return value
    parameter = nn.Parameter(value, requires_grad=value.is_floating_point())
    set_named_tensor(model, name, parameter)
    return parameter
