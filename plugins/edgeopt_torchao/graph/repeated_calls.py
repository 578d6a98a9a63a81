"""A layer that a network calls several times, made into as many layers.

Each call meets activations of its own and needs scales of its own. torchao's quantizers annotate a weight for its first
reader only and leave the other calls with float weights. And folding a BatchNorm into a weight would change it for
every call.
"""

from __future__ import annotations

import re
from collections import Counter

from torch import nn
from torch.fx import GraphModule, Node

from edgeopt.networks.layers import layer_call
from edgeopt.networks.tensors import named_tensor, set_named_tensor

_CALL = re.compile(r"#\d+(?=\.|$)")


def separate_calls(model: GraphModule, *, tied: bool) -> None:
    """Gives every call of a layer after the first parameters of its own, in place: a weight and a bias with new names.

    Calls on the same input become one. With `tied` all names hold one parameter, so that training moves them together;
    otherwise each holds a copy.
    """
    seen: set[Node] = set()
    calls: Counter[str] = Counter()
    layers: dict[str, Node] = {}
    for node in list(model.graph.nodes):
        layer = layer_call(node)
        if layer is None or not any(each.op == "get_attr" for each in node.all_input_nodes):
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
    """The name that a layer or parameter has in the model, without the number of a call."""
    return _CALL.sub("", name)


def _other_name(name: str, call: int) -> str:
    """What "block.conv.weight" is called for the second call: "block.conv#2.weight".

    No attribute that a user writes has a # in its name. With an @, torch would assign to all calls at once.
    """
    holder, _, attribute = name.rpartition(".")
    return f"{holder}#{call}.{attribute}" if holder else f"{attribute}#{call}"


def _as_parameter(model: GraphModule, name: str) -> nn.Parameter:
    """The weight or bias of this name, made a parameter if it is a computed tensor.

    Training and the folding of a BatchNorm expect a parameter.
    """
    value = named_tensor(model, name)
    if isinstance(value, nn.Parameter):
        return value
    parameter = nn.Parameter(value, requires_grad=value.is_floating_point())
    set_named_tensor(model, name, parameter)
    return parameter
