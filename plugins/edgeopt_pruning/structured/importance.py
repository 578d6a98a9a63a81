"""How important the channels of a group are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from edgeopt.plugins import Task
from edgeopt_lightning.fit.validation import outputs_of
from edgeopt_pruning._imports import importance, torch_pruning
from edgeopt_pruning.structured.choice import Ranked
from edgeopt_pruning.structured.groups import ChannelGroup

Importance = Literal["l1", "l2", "taylor", "fpgm", "bn-scale", "random"]


def rank(groups: Iterable[tuple[ChannelGroup, torch_pruning.Group]], kind: Importance, seed: int) -> list[Ranked]:
    """Each group with the importance of its units; groups that `kind` cannot judge are left out.

    Importances are divided by their mean over the group, so that groups can be compared: l1 and l2, norms of the
    weights that go with a channel (Li et al., 2017, https://arxiv.org/abs/1608.08710); taylor, weight times gradient
    (Molchanov et al., 2019, https://arxiv.org/abs/1906.10771), for which `collect_gradients` ran before; fpgm, distance
    from the median filter (He et al., 2019, https://arxiv.org/abs/1811.00250); bn-scale, the BatchNorm weight (Liu et
    al., 2017, https://arxiv.org/abs/1708.06519); random, a control.
    """
    random = np.random.default_rng(seed)
    ranked = []
    for group, each in groups:
        if kind == "random":
            scores = random.random(group.channels)
        else:
            judged = _FUNCTIONS[kind]()(each)
            if judged is None:
                continue
            scores = judged.detach().double().numpy()
        ranked.append(Ranked(group, scores.reshape(group.parts, group.units).mean(0)))
    return ranked


def collect_gradients(module: nn.Module, task: Task, batches: Iterable[tuple[Tensor, Any]]) -> None:
    """Adds up the gradients of the loss over `batches`.

    A batch is inputs, float32 (n, channels, height, width), and their targets as the task's `batch` gives them.
    """
    module.eval()
    module.zero_grad()
    with torch.enable_grad():
        for inputs, targets in batches:
            task.loss(outputs_of(module(inputs)), targets).backward()  # type: ignore[no-untyped-call]  # torch gives it no types


_FUNCTIONS = {
    "l1": lambda: importance.GroupMagnitudeImportance(p=1),
    "l2": lambda: importance.GroupMagnitudeImportance(p=2),
    "taylor": importance.GroupTaylorImportance,
    "fpgm": importance.FPGMImportance,
    "bn-scale": importance.BNScaleImportance,
}
