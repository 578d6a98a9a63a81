"""Looks through a SavedModel before anything of it is loaded: every operator that may run is one that only computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.plugins import CheckpointError
from edgeopt_tensorflow.operators import COMPUTES, RESTORES, SAVES

if TYPE_CHECKING:  # TensorFlow is heavy: whoever reads a file of its has imported it already
    from tensorflow.core.framework.graph_pb2 import NodeDef
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

SAVE_AGAIN = "write it again, with model.export(folder) of Keras or tf.saved_model.save(model, folder, signatures=...)"
_SHOWN = 4


def require_computation(folder: Path) -> None:
    """Raises `CheckpointError`, naming them, where a SavedModel has operators that do more than compute.

    What writes checkpoints is in every SavedModel, and is let pass where nothing else calls it.
    """
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    file = folder / "saved_model.pb"
    if not file.is_file():
        raise CheckpointError(f"{folder} holds no saved_model.pb", hint=SAVE_AGAIN)
    proto = SavedModel()
    try:
        proto.ParseFromString(file.read_bytes())
    except Exception as error:  # the parser's own type moved between versions
        raise CheckpointError(f"{file} is damaged", hint=SAVE_AGAIN) from error
    found = {node.op: node.name for meta in proto.meta_graphs for node in _other_operators(meta)}
    if found:
        named = ", ".join(f"{operator} ({name})" for operator, name in sorted(found.items())[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise CheckpointError(
            f"{folder}: has operators that edgeopt does not run from a file: {named}{more}",
            hint="edgeopt runs what computes with numbers; leave out what reads, writes, prints, looks texts up "
            "or calls code, and save the network alone",
        )


def _other_operators(meta: MetaGraphDef) -> Iterator[NodeDef]:
    """The operators that may run and are not listed as computation."""
    graph = _Graph(meta)
    saving = graph.behind(graph.nodes_of(meta.saver_def.save_tensor_name))
    restoring = graph.behind(graph.nodes_of(meta.saver_def.restore_op_name))
    aside = {*saving.functions, *restoring.functions} - set(meta.object_graph_def.concrete_functions)
    running = graph.behind(
        [name for name in graph.nodes if name not in saving.nodes | restoring.nodes],
        [name for name in graph.functions if name not in aside],
    )
    for part, allowed in ((running, COMPUTES), (restoring, COMPUTES | RESTORES), (saving, COMPUTES | SAVES)):
        yield from (node for node in graph.all_nodes(part) if node.op not in allowed)


class _Part:
    """Nodes at the top of a graph, and functions, by name."""

    def __init__(self) -> None:
        self.nodes: set[str] = set()
        self.functions: set[str] = set()


class _Graph:
    """The nodes at the top of a graph and its functions, by name."""

    def __init__(self, meta: MetaGraphDef) -> None:
        self.nodes: Mapping[str, NodeDef] = {node.name: node for node in meta.graph_def.node}
        self.functions: Mapping[str, tuple[NodeDef, ...]] = {
            each.signature.name: tuple(each.node_def) for each in meta.graph_def.library.function
        }

    def nodes_of(self, tensor: str) -> list[str]:
        """The node that a tensor of the graph's top comes from, where there is one."""
        name = _node_name(tensor)
        return [name] if name in self.nodes else []

    def behind(self, nodes: Iterable[str], functions: Iterable[str] = ()) -> _Part:
        """All that runs when these nodes and functions do."""
        part = _Part()
        waiting_nodes, waiting_functions = list(nodes), list(functions)
        while waiting_nodes or waiting_functions:
            if waiting_nodes:
                name = waiting_nodes.pop()
                if name in part.nodes or name not in self.nodes:
                    continue
                part.nodes.add(name)
                waiting_nodes += map(_node_name, self.nodes[name].input)
                waiting_functions += _called(self.nodes[name])
            else:
                name = waiting_functions.pop()
                if name in part.functions or name not in self.functions:
                    continue
                part.functions.add(name)
                waiting_functions += (each for node in self.functions[name] for each in _called(node))
        return part

    def all_nodes(self, part: _Part) -> Iterator[NodeDef]:
        """The nodes of a part, those in its functions included."""
        yield from (self.nodes[name] for name in sorted(part.nodes))
        yield from (node for name in sorted(part.functions) for node in self.functions[name])


def _node_name(tensor: str) -> str:
    """`^node` is a node that must have run, `node:1` its second output."""
    return tensor.removeprefix("^").partition(":")[0]


def _called(node: NodeDef) -> Iterator[str]:
    """The functions that a node names."""
    for value in node.attr.values():
        if value.func.name:
            yield value.func.name
        yield from (each.name for each in value.list.func)
