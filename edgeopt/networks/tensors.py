"""The tensors of a captured graph, by the dotted names that its `get_attr` nodes have for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is heavy: whoever has a graph has imported it already
    from torch import Tensor
    from torch.fx import GraphModule


def named_tensor(model: GraphModule, name: str) -> Tensor:
    """The parameter or buffer that `name` stands for."""
    holder, _, attribute = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(holder), attribute)
    return tensor


def set_named_tensor(model: GraphModule, name: str, tensor: Tensor) -> None:
    """Lets `name` stand for `tensor`: a parameter where it is one, else a buffer. The module that holds it is made
    where there is none.
    """
    import torch

    holder, _, attribute = name.rpartition(".")
    if holder and holder not in dict(model.named_modules()):
        model.add_submodule(holder, torch.nn.Module())
    owner = model.get_submodule(holder)
    is_parameter = isinstance(tensor, torch.nn.Parameter)
    if isinstance(getattr(owner, attribute, tensor), torch.nn.Parameter) != is_parameter:
        # a name cannot be both; a tensor of the same kind keeps its place among the others
        delattr(owner, attribute)
    if isinstance(tensor, torch.nn.Parameter):
        owner.register_parameter(attribute, tensor)
    else:
        owner.register_buffer(attribute, tensor)


def name_beside(name: str, attribute: str) -> str:
    """The name of another tensor of the same module, such as the bias beside a weight."""
    holder, _, _ = name.rpartition(".")
    return f"{holder}.{attribute}" if holder else attribute


def remove_named_tensor(model: GraphModule, name: str) -> None:
    """Takes the parameter or buffer away."""
    holder, _, attribute = name.rpartition(".")
    delattr(model.get_submodule(holder), attribute)


def constants_read(model: GraphModule) -> set[str]:
    """The names of all tensors that the graph reads."""
    return {str(node.target) for node in model.graph.nodes if node.op == "get_attr"}


def free_name(name: str, value: Tensor, taken: Mapping[str, Tensor | None], suffix: str) -> str:
    """`name`, with `suffix` behind it as often as another value has that name already; equal values share theirs.

    A name that is `taken` by None is shared with nobody.
    """
    import torch

    while name in taken:
        other = taken[name]
        if other is not None and torch.equal(value, other):
            break
        name += suffix
    return name
