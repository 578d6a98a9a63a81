"""Declares the passes `prune-structured` and `prune-unstructured`, and the probe `sparsity`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from edgeopt.plugins import (
    Levels,
    ModelState,
    Options,
    PassContext,
    PassPlugin,
    Probe,
    ProbePlugin,
    hookimpl,
)
from edgeopt_distillation.options import TAUGHT_LIBRARIES
from edgeopt_pruning.options import PruneSearchOptions, PruneStructuredOptions, PruneUnstructuredOptions

if TYPE_CHECKING:
    from torch import Tensor

    from edgeopt.plugins import ProbedNetwork


def structured(state: ModelState, options: PruneStructuredOptions, context: PassContext) -> ModelState:
    """Removes whole channels and trains what is left; see `edgeopt_pruning.structured.prune`."""
    from edgeopt_pruning.structured.prune import prune_structured  # torch, torch-pruning and Lightning are heavy

    return prune_structured(state, options, context)


def search(state: ModelState, options: PruneSearchOptions, context: PassContext) -> ModelState:
    """Searches the widths of all layers and trains what is left; see `edgeopt_pruning.structured.search`."""
    from edgeopt_pruning.structured.search import prune_search  # torch, torch-pruning and Lightning are heavy

    return prune_search(state, options, context)


def unstructured(state: ModelState, options: PruneUnstructuredOptions, context: PassContext) -> ModelState:
    """Sets weights to zero and trains around them; see `edgeopt_pruning.unstructured.prune`."""
    from edgeopt_pruning.unstructured.prune import prune_unstructured  # torch and Lightning are heavy

    return prune_unstructured(state, options, context)


def fingerprint_structured(options: PruneStructuredOptions) -> str:
    """What the report that is replayed removed, or what the allocation says; raises `UserError` when there is none."""
    from edgeopt_pruning.structured.replay import fingerprint  # only where a recipe asks for it

    return fingerprint(options.replay) or fingerprint_allocation(options)


def fingerprint_allocation(options: PruneStructuredOptions | PruneUnstructuredOptions) -> str:
    """What the allocation says, "" for none; raises `UserError` when it cannot be read."""
    from edgeopt_pruning.unstructured.allocated import read_shares  # only where a recipe asks for it

    return "" if options.allocation is None else read_shares(options.allocation).fingerprint


def zeros_in(
    network: ProbedNetwork,
    calibration: Callable[[], Iterable[Tensor]],  # noqa: ARG001 - zeros follow from weights alone
    options: Options,  # noqa: ARG001 - there are none
) -> Probe:
    """Sets a share of a layer's weights to zero; see `edgeopt_pruning.unstructured.probe`."""
    from edgeopt_pruning.unstructured.probe import SparsityProbe  # torch is heavy

    return SparsityProbe(network)


@hookimpl
def edgeopt_probes() -> Iterator[ProbePlugin]:
    """The probe of this package."""
    yield ProbePlugin(
        "sparsity",
        "Share of zeros in a layer's weights, the smallest magnitudes first.",
        Options,
        prepare=zeros_in,
        levels=Levels((0.5, 0.7, 0.9), mildest=0.01, harshest=0.99, untouched=0.0),
        libraries=TAUGHT_LIBRARIES,
        requires=("torch",),
        install="edgeopt[vision]",
    )


@hookimpl
def edgeopt_passes() -> Iterator[PassPlugin]:
    """The passes of this package."""
    yield PassPlugin(
        "prune-structured",
        "Removes the channels that matter least, in every layer that they run through, and trains what is left.",
        PruneStructuredOptions,
        apply=structured,
        fingerprint=fingerprint_structured,
        libraries=TAUGHT_LIBRARIES,
        requires=("torch-pruning", "lightning"),
        install="edgeopt[pruning]",
    )
    yield PassPlugin(
        "prune-search",
        "Tries every group of channels at several widths, searches the widths that the network minds least, and "
        "trains it.",
        PruneSearchOptions,
        apply=search,
        libraries=TAUGHT_LIBRARIES,
        requires=("torch-pruning", "lightning"),
        install="edgeopt[pruning]",
    )
    yield PassPlugin(
        "prune-unstructured",
        "Sets the smallest weights to zero and trains around them.",
        PruneUnstructuredOptions,
        apply=unstructured,
        fingerprint=fingerprint_allocation,
        makes=("zeros",),
        keeps=("zeros",),
        libraries=TAUGHT_LIBRARIES,
        requires=("lightning",),
        install="edgeopt[vision]",
    )
