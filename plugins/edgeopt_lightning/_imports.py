"""Imports Lightning.

It imports torchvision through torchmetrics, which fails beside some torch builds unless done as in
`edgeopt_torchvision.compat`.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("torchvision"):
    from edgeopt_torchvision.compat import import_torchvision

    import_torchvision()

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

__all__ = ["LightningModule", "MisconfigurationException", "Trainer"]
