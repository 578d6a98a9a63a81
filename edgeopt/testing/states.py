"""Looks at model states: what they compute, and whether somebody changed them.

torch is imported where a state is PyTorch's: models of other frameworks are tested in processes without it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.arrays import as_outputs
from edgeopt.types import TORCH, Form, ModelState, Split

if TYPE_CHECKING:
    from edgeopt.arrays import Logits, Outputs

_IMAGES = 8


def state_digest(state: ModelState) -> str:
    """SHA-256 of what a state has learned: of the weights of a module or program; of the answers to some images of a
    model of another framework, which shows its weights to nobody.
    """
    return _weights_digest(state) if state.framework == TORCH else _answers_digest(state)


def _weights_digest(state: ModelState) -> str:
    """SHA-256 over names, types and bytes of all parameters and buffers."""
    import torch  # heavy, and there where the state is PyTorch's

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


def _answers_digest(state: ModelState) -> str:
    batch = np.random.default_rng(0).standard_normal((_IMAGES, *state.input_shape), dtype=np.float32)
    hasher = hashlib.sha256(f"{state.foreign.parameter_count}".encode())
    for each in as_outputs(state.foreign.outputs(batch)):
        hasher.update(np.ascontiguousarray(each).tobytes())
    return hasher.hexdigest()


def logits_of(state: ModelState, split: Split, count: int = 4) -> Logits:
    """The only output for the first images of a split, float32 (n, classes); see `outputs_of`."""
    (logits,) = outputs_of(state, split, count)
    return logits


def outputs_of(state: ModelState, split: Split, count: int = 4) -> Outputs:
    """The outputs for the first images of a split, in evaluation mode; the state is left as it was."""
    batch = state.preprocessing.normalize(split.pixels(range(min(count, len(split)))))
    return _torch_outputs(state, batch) if state.framework == TORCH else as_outputs(state.foreign.outputs(batch))


def _torch_outputs(state: ModelState, batch: Any) -> Outputs:
    import torch  # as above

    from edgeopt.networks.outputs import outputs_in, tensors

    model: Any = state.model
    with torch.no_grad():
        if state.form is Form.PROGRAM:
            return tuple(each.numpy() for each in tensors(model.module()(torch.from_numpy(batch))))
        was_training = model.training
        model.eval()
        try:
            images = torch.from_numpy(batch).to(next(model.parameters()).device)
            return tuple(each.cpu().numpy() for each in outputs_in(model(images), state.output_names))
        finally:
            model.train(was_training)


def check_outputs(state: ModelState, split: Split) -> None:
    """Asserts that the state gives the outputs that it names, finite, and such as its task takes, for one image and for
    several.
    """
    for count in (1, 3):
        outputs = outputs_of(state, split, count)
        assert len(outputs) == len(state.output_names)
        unfit = state.task.unfit([each.shape for each in outputs], count, len(state.classes) or None)
        assert unfit is None, f"the model returns {unfit}"
        assert len(state.task.decode(outputs)) == count
        for name, each in zip(state.output_names, outputs, strict=True):
            assert each.dtype == np.float32 or np.issubdtype(each.dtype, np.integer), f"{name} is {each.dtype}"
            assert np.isfinite(each).all(), name


def check_form(state: ModelState, form: Form) -> None:
    """Asserts that the model is what a state of this form and framework holds."""
    assert state.form is form
    if state.framework == TORCH:
        import torch  # as above

        assert isinstance(state.model, torch.nn.Module if form is Form.MODULE else torch.export.ExportedProgram)
        return
    model = state.foreign
    assert model.parameter_count >= 0
    module, _, function = model.loader.partition(":")
    assert module, 'a loader is "package.module:function"'
    assert function, 'a loader is "package.module:function"'


@contextmanager
def seeded(seed: int, framework: str) -> Iterator[None]:
    """Within, everything random is seeded as a run does it; plugins of other frameworks than PyTorch seed these."""
    random.seed(seed)
    np.random.seed(seed)
    if framework != TORCH:
        yield
        return
    import torch  # as above

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
