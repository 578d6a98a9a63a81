"""Names of tensors that XNNPACK's lowering can take for names in its own graph."""

from __future__ import annotations

import re

from torch.fx import GraphModule

from edgeopt.networks.tensors import named_tensor, remove_named_tensor, set_named_tensor


def give_plain_names(module: GraphModule) -> None:
    """Renames each tensor whose name cannot stand in a graph, such as `0.weight` or a RegNet's `block1-0.weight`.

    The lowering writes dots as underscores, so the new name must differ from all others in that spelling too.
    """
    targets = dict.fromkeys(node.target for node in module.graph.nodes if node.op == "get_attr")
    taken = {target.replace(".", "_") for target in targets}
    moved = {target: _move(module, target, taken) for target in targets if re.search(r"^\d|[^\w.]", target)}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            node.target = moved.get(node.target, node.target)
    if moved:
        module.recompile()


def _move(module: GraphModule, name: str, taken: set[str]) -> str:
    plain = re.sub(r"^(?=\d)", "layer_", re.sub(r"\W", "_", name))
    while plain in taken or hasattr(module, plain):
        plain += "_"
    taken.add(plain)
    set_named_tensor(module, plain, named_tensor(module, name))
    remove_named_tensor(module, name)
    return plain
