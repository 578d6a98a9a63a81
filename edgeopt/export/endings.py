"""Files that go on behind their network, so that they end at answers: the task says how, and no exporter knows it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeopt.errors import ExportError
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.use import Use
from edgeopt.recipe.endings import ends_of, problem_of_ending
from edgeopt.tasks.endings import OUTPUTS, Tail
from edgeopt.types import TORCH, ModelState


@dataclass(frozen=True, eq=False)
class EndedState:
    """A state as its file has it, what comes behind its program in the file's own format, and the file's outputs."""

    state: ModelState
    tail: Tail | None
    output_names: tuple[str, ...]


def ended(use: Use[ExporterPlugin], state: ModelState) -> EndedState | None:
    """A state for a file that ends where the exporter's options say; None for one that ends at its program's outputs.

    Raises `ExportError` where it cannot end so, and `FunctionChangedError` where the program with the layers of the
    ending does not give what both give one after the other.
    """
    if (problem := problem_of_ending(use, state.task, len(state.classes))) is not None:
        raise ExportError(problem)
    name = ends_of(use.options)
    if name == OUTPUTS or state.framework != TORCH:
        return None
    form, ending = use.plugin.tails, state.task.ending(name)
    tail, layers = ending.tail(form), ending.layers(form)
    state = replace(state, task=state.task.ended(name))
    if layers is not None:
        from edgeopt.export.layers_behind import with_layers_behind  # torch

        state = with_layers_behind(state, layers, ending.outputs if tail is None else ending.taken)
    return EndedState(state, tail, ending.outputs)
