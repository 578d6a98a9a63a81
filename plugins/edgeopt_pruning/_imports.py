"""Imports torch-pruning.

It looks for timm, to count operations of timm's attention for who asks it to; and timm imports whatever follows
trainings: seconds of each process that prunes. A network of timm has imported it before.
"""

from __future__ import annotations

from edgeopt.plugins import without_packages

with without_packages("timm"):
    import torch_pruning
    from torch_pruning.ops import OPTYPE
    from torch_pruning.pruner import importance

__all__ = ["OPTYPE", "importance", "torch_pruning"]
