"""Stop ranges and BatchNorm statistics from moving, at the point of a training where a schedule asks for it."""

from __future__ import annotations

import torch
from torch import nn
from torch.fx import GraphModule

from edgeopt.plugins import NothingChangedError
from edgeopt_torchao.bits.learned_step import LearnedStep
from edgeopt_torchao.graph.batch_norm import batch_norms
from edgeopt_torchao.graph.fake_quantize import fake_quantizers


def freeze_observers(prepared: nn.Module) -> int:
    """Hold the range of every fake quantizer from now on; returns how many are held. Learned steps go on learning.

    Raises `NothingChangedError` when there is none.
    """
    quantizers = fake_quantizers(prepared)
    if not quantizers:
        raise NothingChangedError(
            "there is no fake quantizer whose range could be frozen",
            hint="freeze observers on what prepare_qat returns",
        )
    observing = [quantizer for quantizer in quantizers if not isinstance(quantizer, LearnedStep)]
    for quantizer in observing:
        quantizer.disable_observer()
    return len(observing)


def freeze_batch_norm(prepared: nn.Module) -> int:
    """Hold the statistics of every BatchNorm from now on; returns how many are held, 0 for a model that has none.

    Raises `NothingChangedError` when some BatchNorm would go on moving.
    """
    freezable = batch_norms(prepared)
    base = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - the common base has no public name
    every = [child for child in prepared.modules() if isinstance(child, base)]
    moving = len(every) - len(freezable) + sum(map(_training_operators, prepared.modules()))
    if moving:
        raise NothingChangedError(
            f"{moving} of {moving + len(freezable)} BatchNorm layers cannot be frozen",
            hint="freeze BatchNorm on what prepare_qat returns",
        )
    for batch_norm in freezable:
        batch_norm.freeze()
    return len(freezable)


def _training_operators(module: nn.Module) -> int:
    """How many BatchNorm operators of a graph update running statistics."""
    if not isinstance(module, GraphModule):
        return 0
    return sum(
        node.target is torch.ops.aten.batch_norm.default and node.args[5] is True and node.args[3] is not None
        for node in module.graph.nodes
    )
