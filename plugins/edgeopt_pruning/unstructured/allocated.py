"""A share of zeros for each layer, read from a file. Light: the plan reads it as well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.plugins import NothingChangedError, Problem
from edgeopt.sensitivity.allocation import OPTION, Allocation, read_allocation

if TYPE_CHECKING:
    from edgeopt_pruning.unstructured.masks import Choice  # imports torch

__all__ = ["OPTION", "choose_allocated", "read_shares"]


def read_shares(file: str) -> Allocation:
    """The allocation of zeros in a file; raises `UserError` for what is wrong in it, with its line."""
    return read_allocation(Path(file), "sparsity", _problem)


def choose_allocated(choice: Choice, allocation: Allocation) -> tuple[Choice, tuple[float, ...]]:
    """The choice, reduced to the layers to which the file gives zeros, and the share of each of them.

    Protected layers stay dense whatever the file says.

    Raises `UserError` for layers that the model does not have or cannot prune, `NothingChangedError` when none gets a
    zero.
    """
    allocation.require_layers([*choice.pruned, *(name for name, why in choice.dense.items() if why == "protected")])
    shares = {name: share for name in choice.pruned if (share := allocation.levels.get(name, 0.0)) > 0}
    if not shares:
        message = f"{OPTION}: {allocation.file} gives no layer a zero"
        raise NothingChangedError(Problem(message, "leave out this pass, or raise a share", option=OPTION))
    left = dict.fromkeys((name for name in choice.pruned if name not in shares), "no zeros allocated")
    return replace(choice, pruned=tuple(shares), dense={**choice.dense, **left}), tuple(shares.values())


def _problem(share: float) -> str | None:
    return None if 0.0 <= share < 1.0 else f"{share:g} is no share of zeros, which is 0 or more and less than 1"
