"""Names of a graph's operators, the same in the ATen and in the edge dialect."""

from __future__ import annotations

from torch.fx import Node


def operator_name(node: Node) -> str:
    """Return for instance `aten.conv2d.default`, in the ATen and in the edge dialect; a placeholder's own name."""
    if node.op != "call_function":
        return node.name
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return getattr(node.target, "__name__", str(node.target))
    return f"{schema.name.replace('::', '.')}.{schema.overload_name or 'default'}"
