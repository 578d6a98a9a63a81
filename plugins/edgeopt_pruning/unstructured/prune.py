"""The pass `prune-unstructured`: weights set to zero one by one, and training around the zeros."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeopt.networks.capture import parallel_branches
from edgeopt.networks.copies import copy_module
from edgeopt.plugins import Curve, Json, ModelState, NothingChangedError, PassContext, PassRecord, Problem
from edgeopt_distillation.fit_with_teacher import fit_taught, teacher_of
from edgeopt_lightning.fit.hooks import FitHooks, FitResult
from edgeopt_pruning.options import PruneUnstructuredOptions
from edgeopt_pruning.stored_weights import with_stored_weights
from edgeopt_pruning.structured.channels import example_of
from edgeopt_pruning.unstructured.allocated import OPTION, choose_allocated, read_shares
from edgeopt_pruning.unstructured.masks import (
    Choice,
    Pattern,
    Scope,
    Share,
    attach_masks,
    choose_layers,
    choose_zeros,
    detach_masks,
    hold_zeros,
    wanted_zeros,
    weights_of,
)
from edgeopt_pruning.unstructured.schedule import SparsitySchedule

DENSE_KERNELS = (
    "zeros alone make no file faster or smaller: runtimes multiply by them like by any other number and store them; "
    "they shrink what is compressed, such as an app package"
)


@dataclass(frozen=True)
class Zeros:
    """What the weights of a model keep while it trains. What is zero already is remembered in the model's own masks.

    Where `allocated` has a share for each layer, the schedule runs from 0 to 1 of it.
    """

    layers: tuple[str, ...]
    schedule: SparsitySchedule
    scope: Scope
    pattern: Pattern | None
    allocated: tuple[float, ...] | None = None

    def share(self, grown: float) -> Share:
        """The share of zeros at a value of the schedule: that of all layers, or of what each was allocated."""
        return grown if self.allocated is None else [grown * share for share in self.allocated]

    def constrain(self, module: nn.Module, epochs: float) -> None:
        """The zeros that are due when `epochs` are done."""
        hold_zeros(module, self.layers, self.share(self.schedule.at(epochs)), self.scope, self.pattern)


def prune_unstructured(state: ModelState, options: PruneUnstructuredOptions, context: PassContext) -> ModelState:
    """A state with a trained copy of the module in which the smallest weights are exactly 0; masks are taken out again.

    Masks hold after every step, also for averaged weights. The epoch is chosen among those that ended with all zeros in
    place. Ranking by magnitude is that of S. Han et al., "Learning both weights and connections for efficient neural
    networks", 2015.

    Raises what `teacher_of` and `fit` raise, and `NothingChangedError` when no layer can be pruned, or no weight that
    is not zero already.
    """
    state, stored = with_stored_weights(state)
    module = copy_module(state.module)
    pattern = Pattern(*options.kept_of) if options.kept_of else None
    branches = parallel_branches(module, example_of(state, context), state.batch_range)
    choice, allocated = choose_layers(module, options.protect, pattern, branches), None
    if options.allocation is not None:
        choice, allocated = choose_allocated(choice, read_shares(options.allocation))
    zeros = Zeros(choice.pruned, _schedule(options, context), options.scope, pattern, allocated)
    _require_new_zeros(module, zeros)
    attach_masks(module, zeros.layers)
    hooks = FitHooks(constrain=zeros.constrain, first_epoch=zeros.schedule.first_full_epoch)
    teacher = teacher_of(options, state.task, context)
    result = fit_taught(module, teacher, state.task, options, context, hooks, label="prune-unstructured")
    detach_masks(module, zeros.layers)

    record = PassRecord(
        "prune-unstructured",
        {**result.facts, **_facts(state.module, module, options, choice)},
        (*result.curves, _curve(module, zeros, result)),
        (*stored, *result.warnings, *_warnings(module, zeros)),
    )
    return state.after(record, module)


def _schedule(options: PruneUnstructuredOptions, context: PassContext) -> SparsitySchedule:
    """The schedule that was asked for, run through faster where the budget has fewer epochs."""
    pace = context.budget.of(context.budget.epochs, options.epochs) / options.epochs
    begin, end = options.begin_epoch * pace, options.last_growth * pace
    final = options.share_of_zeros if options.allocation is None else 1.0
    return SparsitySchedule(final, options.initial_sparsity, begin, end)


def _require_new_zeros(module: nn.Module, zeros: Zeros) -> None:
    weights = list(weights_of(module, zeros.layers).values())
    count, final = sum(weight.numel() for weight in weights), zeros.share(zeros.schedule.final)
    share, option = zeros.schedule.final, "sparsity"
    if zeros.allocated is not None:
        share, option = _share_of_all(weights, zeros), OPTION
    if wanted_zeros(weights, final, zeros.scope) == 0:
        raise NothingChangedError(
            Problem(
                f"a sparsity of {share:g} is less than one zero in the {count} weights that could be pruned",
                f"ask for at least {1 / count:.2g}",
                option=option,
            )
        )
    none = [torch.zeros_like(weight, dtype=torch.bool) for weight in weights]
    chosen = choose_zeros(weights, none, final, zeros.scope, zeros.pattern)
    if not any(weight[mask].any() for weight, mask in zip(weights, chosen, strict=True)):
        already = sum(int((weight == 0).sum()) for weight in weights) / count
        raise NothingChangedError(
            Problem(
                f"all weights that a sparsity of {share:g} chooses are 0 already: the share of zeros is {already:.3g}",
                f"ask for more than {already:.3g}, or leave out this pass",
                option=option,
            )
        )


def _facts(before: nn.Module, after: nn.Module, options: PruneUnstructuredOptions, choice: Choice) -> dict[str, Json]:
    weights = weights_of(after, choice.pruned)
    zeros = {name: int((weight == 0).sum()) for name, weight in weights.items()}
    count = sum(weight.numel() for weight in weights.values())
    parameters = sum(each.numel() for each in after.parameters())
    return {
        "sparsity": sum(zeros.values()) / count,
        "sparsity_of_all_parameters": sum(int((each == 0).sum()) for each in after.parameters()) / parameters,
        "zeros": sum(zeros.values()),
        "weights": count,
        "scope": options.scope,
        "pattern": options.pattern,
        "sparsity_schedule": options.sparsity_schedule,
        "layers_pruned": len(weights),
        "layer_sparsity": {name: zeros[name] / weights[name].numel() for name in weights},
        "dense_layers": dict(choice.dense),
        "weight_bytes": parameters * 4,
        "compressed_weight_bytes_before": _compressed_bytes(before),
        "compressed_weight_bytes": _compressed_bytes(after),
    }


def _warnings(module: nn.Module, zeros: Zeros) -> list[str]:
    empty = [name for name, weight in weights_of(module, zeros.layers).items() if not weight.any()]
    lost = (
        [f"nothing is left of {', '.join(empty)}: protect such layers, or set scope to layer or lamp"] if empty else []
    )
    return [DENSE_KERNELS, *lost]


def _curve(module: nn.Module, zeros: Zeros, result: FitResult) -> Curve:
    weights = list(weights_of(module, zeros.layers).values())
    of_all = 1.0 if zeros.allocated is None else _share_of_all(weights, zeros)
    epochs = tuple(float(epoch) for epoch in range(1, result.epochs_run + 1))
    return Curve(
        "sparsity", epochs, tuple(of_all * zeros.schedule.at(epoch) for epoch in epochs), y_label="share of zeros"
    )


def _share_of_all(weights: Sequence[Tensor], zeros: Zeros) -> float:
    """The share of zeros in all pruned layers when the schedule is through."""
    wanted = wanted_zeros(weights, zeros.share(zeros.schedule.final), zeros.scope)
    return wanted / sum(weight.numel() for weight in weights)


def _compressed_bytes(module: nn.Module) -> int:
    """Size of all parameters as float32 after DEFLATE, which app packages use."""
    compressor = zlib.compressobj(level=6)
    size = 0
    for each in module.parameters():
        size += len(compressor.compress(each.detach().cpu().float().contiguous().numpy().tobytes()))
    return size + len(compressor.flush())
