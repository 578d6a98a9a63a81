"""The loss of a detector that learns from another one with the same anchors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgeopt_detection.decoding.description import BoxDecoding


def taught_loss(
    heads: tuple[Tensor, ...], teacher: tuple[Tensor, ...], decoding: BoxDecoding, temperature: float
) -> Tensor:
    """How far raw heads, float32 and in the order of `decoding.outputs`, are from a teacher's: a scalar.

    Classes of all anchors count: Kullback-Leibler divergence of softened answers, times the temperature squared. Boxes
    and centerness count as much as the teacher believes that there is something. All is divided by how many anchors
    that are in its eyes, as the loss against boxes is.
    Source: G. Chen et al., "Learning efficient object detection models with knowledge distillation", NIPS 2017.
    """
    own, other = ([each.float() for each in given] for given in (heads, teacher))
    if decoding.background is not None:
        there = 1 - other[0].softmax(dim=2)[..., decoding.background]
        mine, theirs = ((each / temperature).log_softmax(dim=2) for each in (own[0], other[0]))
        classes = functional.kl_div(mine, theirs, reduction="sum", log_target=True)
    else:
        there = other[0].sigmoid().amax(dim=2)
        wanted = (other[0] / temperature).sigmoid()
        entropy = functional.binary_cross_entropy_with_logits
        classes = entropy(own[0] / temperature, wanted, reduction="sum")
        classes = classes - entropy(other[0] / temperature, wanted, reduction="sum")
    boxes = (functional.smooth_l1_loss(own[1], other[1], reduction="none").sum(dim=2) * there).sum()
    loss = classes * temperature**2 + boxes
    if len(own) > 2:
        apart = functional.binary_cross_entropy_with_logits(own[2], other[2].sigmoid(), reduction="none")
        loss = loss + (apart.squeeze(2) * there).sum()
    return loss / torch.clamp(there.sum(), min=1.0)
