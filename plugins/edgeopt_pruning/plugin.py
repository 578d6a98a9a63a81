"""Declares the passes `prune-structured` and `prune-unstructured`."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.hookspecs import hookimpl
from edgeopt.plugin import PassContext, PassPlugin
from edgeopt.types import ModelState
from edgeopt_pruning.options import PruneStructuredOptions
from edgeopt_pruning.unstructured_options import PruneUnstructuredOptions


def structured(state: ModelState, options: PruneStructuredOptions, context: PassContext) -> ModelState:
    """Removes whole channels and trains what is left; see `edgeopt_pruning.structured`."""
    from edgeopt_pruning.structured import prune_structured  # torch, torch-pruning and Lightning are heavy

    return prune_structured(state, options, context)


def unstructured(state: ModelState, options: PruneUnstructuredOptions, context: PassContext) -> ModelState:
    """Sets weights to zero and trains around them; see `edgeopt_pruning.unstructured`."""
    from edgeopt_pruning.unstructured import prune_unstructured  # torch and Lightning are heavy

    return prune_unstructured(state, options, context)


def fingerprint_replay(options: PruneStructuredOptions) -> str:
    """What the report that is replayed removed; raises `UserError` when there is none."""
    from edgeopt_pruning.replay import fingerprint  # only where a recipe asks for it

    return fingerprint(options.replay)


@hookimpl
def edgeopt_passes() -> Iterator[PassPlugin]:
    """The passes of this package."""
    yield PassPlugin(
        "prune-structured",
        "Removes the channels that matter least, in every layer that they run through, and trains what is left.",
        PruneStructuredOptions,
        apply=structured,
        fingerprint=fingerprint_replay,
        requires=("torch-pruning", "lightning"),
        install="edgeopt[pruning]",
    )
    yield PassPlugin(
        "prune-unstructured",
        "Sets the smallest weights to zero and trains around them.",
        PruneUnstructuredOptions,
        apply=unstructured,
        makes=("zeros",),
        keeps=("zeros",),
        requires=("lightning",),
        install="edgeopt[vision]",
    )
