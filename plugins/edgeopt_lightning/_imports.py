"""Imports Lightning.

It imports torchvision through torchmetrics, which fails beside some torch builds unless done as in
`edgeopt_torchvision.compat`. Of torchmetrics it needs the base class: metrics of text and sound, and plots, import
libraries that take five times as long as all of Lightning. A plugin that wants these imports torchmetrics before.
"""

from __future__ import annotations

from importlib.util import find_spec

from edgeopt.plugins import without_packages

if find_spec("torchvision"):
    from edgeopt_torchvision.compat import import_torchvision

    import_torchvision()

with without_packages("matplotlib", "scipy", "transformers"):
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

__all__ = ["LightningModule", "MisconfigurationException", "Trainer"]
