"""Weights that a network computes from its parameters on every call, computed once.

Weight normalization, spectral normalization and weight standardization do that. In a file the result is a constant like
any other weight: quantizers know how to round it, and runtimes how to store it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edgeopt.networks.bits import upstream
from edgeopt.networks.layers import layer_call, operator_name
from edgeopt.networks.tensors import constants_read, free_name, named_tensor, remove_named_tensor, set_named_tensor

if TYPE_CHECKING:  # torch is heavy: whoever has a graph has imported it already
    from torch import Tensor, nn
    from torch.fx import GraphModule, Node


def store_computed_weights(module: nn.Module) -> tuple[str, ...]:
    """Makes, in place, each weight that a layer computes from other tensors a parameter of its present value; names the
    layers.

    Weight and spectral normalization of both kinds, as a hook and as a parametrization, and every other
    parametrization. In evaluation mode the module computes the same as before; training it further goes on without the
    normalization.
    """
    from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm

    names = []
    for name, layer in module.eval().named_modules():
        hooks = list(layer._forward_pre_hooks.values())  # noqa: SLF001 - torch has no other way to ask
        if parametrize.is_parametrized(layer):
            for attribute in list(layer.parametrizations):
                parametrize.remove_parametrizations(layer, attribute)
            names.append(name)
        for hook in hooks:
            if isinstance(hook, WeightNorm):
                remove_weight_norm(layer, hook.name)
                names.append(name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(layer, hook.name)
                names.append(name)
        if name in names:
            _forget_loading_hooks(layer)
    return tuple(dict.fromkeys(names))


def _forget_loading_hooks(layer: nn.Module) -> None:
    """Removes the hooks that torch leaves behind, which rewrite a state dict for the normalization
    that the layer had.
    """
    hooks = layer._load_state_dict_pre_hooks  # noqa: SLF001 - torch has no other way to ask
    for key, hook in list(hooks.items()):
        if rewrites_state_dict(hook):
            del hooks[key]


def rewrites_state_dict(hook: object) -> bool:
    """Whether a hook that runs before a state dict is loaded is torch's own, for weight or spectral normalization."""
    inner = getattr(hook, "hook", hook)
    return str(getattr(inner, "__module__", "")).startswith("torch.nn.utils.")


def fold_computed_weights(model: GraphModule) -> int:
    """Computes, in place, each weight and bias of a captured graph's layers that depends on constants alone; returns
    how many there were.

    The results are buffers: no parameter of the network has these values.
    """
    import torch

    found = [
        (layer, place, role)
        for layer in model.graph.nodes
        for place, role in _roles(layer)
        if _is_computed(layer.args[place])
    ]
    with torch.no_grad():
        values = [_value(model, layer.args[place]) for layer, place, _ in found]
    read_before = constants_read(model)
    for layer, place, _ in found:
        layer.update_arg(place, None)
    model.graph.eliminate_dead_code()
    named: dict[str, Tensor | None] = dict.fromkeys(constants_read(model))  # None where other nodes read it too
    for name in read_before - set(named):  # the results take their place
        remove_named_tensor(model, name)
    for (layer, place, role), value in zip(found, values, strict=True):
        module = _module_of(layer)  # one that multiplies by several weights of its own has a name for each
        name = free_name(f"{module}.{role}" if module else role, value, named, "_computed")
        named[name] = value
        set_named_tensor(model, name, value.detach().contiguous())
        with model.graph.inserting_before(layer):
            layer.update_arg(place, model.graph.get_attr(name))
    model.recompile()
    return len(found)


def _roles(node: Node) -> Iterator[tuple[int, str]]:
    """Places of a layer's arguments that may be computed, with the names that their results get."""
    layer = layer_call(node)
    if layer is not None:
        yield layer.operator.weight, "weight"
        if layer.bias is not None and layer.operator.bias is not None and layer.operator.bias < len(node.args):
            yield layer.operator.bias, "bias"


def _is_computed(argument: object) -> bool:
    """Whether it is the result of arithmetic on constants alone. Rounding to integers does not count: exporters have to
    see it.
    """
    return operator_name(argument).startswith("aten.") and all(
        each.op == "get_attr" or operator_name(each).startswith("aten.")
        for each in upstream(argument)  # type: ignore[arg-type]  # what has an operator's name is a node
    )


def _value(model: GraphModule, node: Node) -> Any:
    from torch.fx.node import map_arg

    if node.op == "get_attr":
        return named_tensor(model, str(node.target))
    arguments, named = map_arg((node.args, node.kwargs), lambda each: _value(model, each))
    return node.target(*arguments, **named)  # type: ignore[operator]  # an operator, as `_is_computed` has seen


def _module_of(layer: Node) -> str:
    """The path of the module that called the layer; empty where nothing says so."""
    calls = list(layer.meta.get("nn_module_stack", {}).values())
    return str(calls[-1][0]) if calls else ""
