"""Graphs that torch writes out as Python when somebody runs or reads them, not whenever they change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:  # torch is heavy: whoever traces has imported it already
    from torch.fx import GraphModule

_OF_CODE = ("_code", "_lineno_map", "_prologue_start")
"""What writing a graph out as Python leaves in the module, beside the function `forward` in its class."""

_OF_PYTREES = ("_in_spec", "_out_spec")
"""What it leaves beside that where the graph takes or returns containers."""


class _NotYetWritten:
    """Stands for an attribute of a module whose graph was not yet written out; the first who reads it has it written.

    A module of torch.fx has a class of its own, and there this stands.
    """

    def __init__(self, module: GraphModule, name: str, write: Callable[[GraphModule], object]) -> None:
        self._module, self._name, self._write = ref(module), name, write

    def __get__(self, instance: GraphModule | None, owner: type[GraphModule]) -> Any:
        module = instance if instance is not None else self._module()
        if module is None:
            raise AttributeError(self._name)
        for name in (*_OF_CODE, *_OF_PYTREES):
            if isinstance(vars(owner).get(name), _NotYetWritten):
                delattr(owner, name)
        self._write(module)
        return getattr(owner if instance is None else instance, self._name)


@contextmanager
def deferred_code() -> Iterator[None]:
    """Within, the graph of a module is written out as Python when it is run or read, not whenever it changed.

    Dozens of passes write out each graph two to four times, and hardly any is run. Does nothing where torch's modules
    have no such method: another version is slower then, to the same result.
    """
    from unittest.mock import patch

    from torch.fx import GraphModule  # heavy, and imported already where a graph is at hand

    write = getattr(GraphModule, "recompile", None)
    if write is None:
        yield
        return

    def recompile(module: GraphModule) -> None:
        takes_pytrees = hasattr(module.graph._codegen, "pytree_info")  # noqa: SLF001
        for name in (*_OF_CODE, *_OF_PYTREES) if takes_pytrees else _OF_CODE:
            vars(module).pop(name, None)
            setattr(type(module), name, _NotYetWritten(module, name, write))
        type(module).forward = _NotYetWritten(module, "forward", write)  # type: ignore[assignment]  # as good as one

    with patch.object(GraphModule, "recompile", recompile):
        yield
