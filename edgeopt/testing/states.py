"""Looks at model states: what they compute, and whether somebody changed them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgeopt.types import Form, ModelState, Split

if TYPE_CHECKING:
    from edgeopt.arrays import Logits


def weights_digest(state: ModelState) -> str:
    """SHA-256 over names, types and bytes of all parameters and buffers of a module or program."""
    model: Any = state.model
    tensors: dict[str, Any] = dict(model.state_dict() if state.form is Form.MODULE else model.state_dict)
    if state.form is Form.PROGRAM:
        tensors |= {name: value for name, value in model.constants.items() if isinstance(value, torch.Tensor)}
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def logits_of(state: ModelState, split: Split, count: int = 4) -> Logits:
    """Logits of the first images of a split, float32 (n, classes), in evaluation mode; the state
    is left as it was.
    """
    model: Any = state.model
    batch = torch.from_numpy(state.preprocessing.normalize(split.pixels(range(min(count, len(split))))))
    with torch.no_grad():
        if state.form is Form.PROGRAM:
            return model.module()(batch).numpy()  # type: ignore[no-any-return]
        was_training = model.training
        model.eval()
        try:
            return model(batch.to(next(model.parameters()).device)).cpu().numpy()  # type: ignore[no-any-return]
        finally:
            model.train(was_training)


def check_logits(state: ModelState, split: Split) -> None:
    """Asserts that the state gives finite float32 logits of the right shape, for one image and for several."""
    for count in (1, 3):
        logits = logits_of(state, split, count)
        assert logits.shape == (count, len(state.classes))
        assert logits.dtype == np.float32
        assert np.isfinite(logits).all()
