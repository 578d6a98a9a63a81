"""Networks of random weights whose BatchNorms know the statistics of their inputs, without which
all logits are alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is heavy, and a process that only races files goes without
    from torch import Tensor, nn

    from edgeopt.types import ModelState


def untrained(arch: str, batches: Iterable[Tensor]) -> nn.Module:
    """A model of torchvision after a look at `batches`, each float32 (n, 3, height, width); the weights are always the
    same.
    """
    import torch

    from edgeopt_torchvision.compat import import_torchvision

    torch.manual_seed(0)
    module = getattr(import_torchvision().models, arch)(weights=None).train()
    for each in module.modules():
        if isinstance(each, torch.nn.BatchNorm2d):
            each.momentum = 0.3
    with torch.no_grad():
        for batch in batches:
            module(batch)
    return module.eval()


def untrained_program(arch: str, image_size: int) -> ModelState:
    """The same as a float program for images of `image_size` px, after some batches of noise."""
    import torch

    from edgeopt.networks.capture import capture
    from edgeopt.preprocessing import Preprocessing
    from edgeopt.tasks import TASKS
    from edgeopt.types import Form, ModelState

    torch.manual_seed(0)
    module = untrained(arch, [torch.randn(8, 3, image_size, image_size) for _ in range(6)])
    program = capture(module, torch.randn(2, 3, image_size, image_size), (1, 64))
    classes = tuple(map(str, range(1000)))
    preprocessing = Preprocessing(image_size, resize=image_size, crop=image_size)
    return ModelState(program, Form.PROGRAM, TASKS["classification"], classes, preprocessing)
