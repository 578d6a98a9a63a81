"""A faster conversion by litert-torch, to the same file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from litert_torch.backend.lowerings import _basic, registry


@contextmanager
def quick_conversion() -> Iterator[None]:
    """Within, litert-torch lowers transposed and copied values by one operator of StableHLO, without JAX.

    It has such lowerings, and registers others behind them that trace a JAX function for each shape: two fifths of
    those that a MobileNetV3 needs, a tenth of its conversion. Does nothing where litert-torch has them elsewhere.
    """
    by_one = {
        torch.ops.aten.permute.default: getattr(_basic, "_aten_permute", None),
        torch.ops.aten.clone.default: getattr(_basic, "_aten_clone", None),
    }
    there = {operator: lowering for operator, lowering in by_one.items() if lowering is not None}
    with patch.dict(registry.global_registry.registered_ops, there):
        yield
