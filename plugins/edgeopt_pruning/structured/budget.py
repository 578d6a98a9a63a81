"""The most that a network may cost when channels are gone, and what tells its cost after a removal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from edgeopt.plugins import ModelState, NothingChangedError, PassContext, Problem, UserError
from edgeopt_pruning.options import ChannelOptions
from edgeopt_pruning.structured.cost import cost_of, layers_of, lost_channels
from edgeopt_pruning.structured.file_cost import FileMeter, cost_in_file
from edgeopt_pruning.structured.groups import ChannelGroup, Removal

_HALVINGS = 24  # of the range of shares: finer than one channel of any network
_HALVINGS_MEASURED = 7  # each exports and runs a file
_SHARE_WHEN_LEFT_OUT = 0.5


@dataclass(frozen=True)
class ChannelBudget:
    """The cost that a model starts with, the most that may be left, and what tells the cost after a removal."""

    start: float
    most: float
    cost: Callable[[nn.Module, Sequence[ChannelGroup]], Callable[[Removal], float]]
    halvings: int


@contextmanager
def budget_of(
    module: nn.Module, example: Tensor, state: ModelState, options: ChannelOptions, context: PassContext
) -> Iterator[ChannelBudget]:
    """Within, the budget that the options ask for; files that are measured for it are deleted at the end.

    Raises `NothingChangedError` when the module costs no more than that already.
    """
    meter = FileMeter(options.runtime, state, context) if options.cost in ("bytes", "latency") else None
    try:
        yield _budget(module, example, options, meter)
    finally:
        if meter is not None:
            meter.close()


def require_reached(left: float, most: float, groups: int, options: ChannelOptions) -> None:
    """Raises `UserError` when a network of `groups` groups of channels costs more than `most` at its smallest."""
    if left > most:
        message = (
            f"the model costs {said(left, options)} when all goes that may, more than the {said(most, options)} "
            f"that are asked for: {groups} groups of channels can be made smaller"
        )
        hint = (
            f"raise the budget, lower least (now {options.least:g}) or round_to (now {options.round_to}), "
            "or protect less"
        )
        raise UserError(Problem(message, hint, option="budget" if options.budget is not None else "keep"))


def said(value: float, options: ChannelOptions) -> str:
    """A cost with its unit."""
    unit = {"macs": "multiplications", "parameters": "parameters", "bytes": "bytes", "latency": "ms"}[options.cost]
    return f"{value:.3g} {unit}" if options.cost == "latency" else f"{value:,.0f} {unit}"


def _budget(module: nn.Module, example: Tensor, options: ChannelOptions, meter: FileMeter | None) -> ChannelBudget:
    if meter is None:

        def counted(module: nn.Module, groups: Sequence[ChannelGroup]) -> Callable[[Removal], float]:
            layers = layers_of(module, example)
            return lambda removal: getattr(cost_of(layers, lost_channels(groups, removal)), options.cost)

        start = counted(module, ())({})
        cost, halvings = counted, _HALVINGS
    else:
        measure, start = (
            (meter.bytes_of, float(meter.size_bytes))
            if options.cost == "bytes"
            else (meter.latency_of, meter.latency_ms)
        )

        # a file has all layers: the groups do not matter
        def cost(module: nn.Module, groups: Sequence[ChannelGroup]) -> Callable[[Removal], float]:  # noqa: ARG001
            return cost_in_file(module, example, measure)

        halvings = _HALVINGS_MEASURED
    most = options.budget if options.budget is not None else (options.keep or _SHARE_WHEN_LEFT_OUT) * start
    if most >= start:
        message = f"the model already costs {said(start, options)}, no more than budget = {most:g}"
        raise NothingChangedError(Problem(message, "lower budget, or leave this pass out", option="budget"))
    return ChannelBudget(start, most, cost, halvings)
