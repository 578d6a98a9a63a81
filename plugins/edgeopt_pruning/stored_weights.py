"""Stores the weights that layers compute on every call, because only stored weights can be removed."""

from __future__ import annotations

from dataclasses import replace

from edgeopt.networks.computed_weights import store_computed_weights
from edgeopt.networks.copies import copy_module
from edgeopt.plugins import ModelState


def with_stored_weights(state: ModelState) -> tuple[ModelState, tuple[str, ...]]:
    """The state with stored weights in place of weights that a normalization computed, and a warning for the report.

    The state is the same, and there is no warning, where no layer computed its weights.
    """
    module = copy_module(state.module)
    names = store_computed_weights(module)
    if not names:
        return state, ()
    named = ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
    warning = (
        f"{len(names)} layers ({named}) computed their weights on every call, as weight normalization does; "
        f"they hold them now, and are trained on without it"
    )
    return replace(state, model=module), (warning,)
