"""What is used of Lightning, which imports torchmetrics, and that torchvision; beside some builds of torch that only imports one way."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("torchvision"):
    from edgeopt_torchvision.compat import import_torchvision

    import_torchvision()

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

__all__ = ["LightningModule", "MisconfigurationException", "Trainer"]
