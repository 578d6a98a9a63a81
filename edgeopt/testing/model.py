"""What a source of models must keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from edgeopt.errors import UserError
from edgeopt.networks.capture import to_program
from edgeopt.networks.saved import load_state, save_state
from edgeopt.plugins.declarations import ModelPlugin, Plugin
from edgeopt.plugins.use import Use
from edgeopt.testing.contracts import PluginContract
from edgeopt.testing.states import check_form, check_logits, logits_of, seeded, state_digest
from edgeopt.testing.values import tiny_data
from edgeopt.types import TORCH, Form, ModelState, TrainingData


class ModelContract(PluginContract):
    """Subclass it, set `name` and `options`; override `data` when the model needs larger images.

    `any_classes` is False for a source that has a head of its own, such as a file: built for more classes, it must
    refuse. What only PyTorch shows, such as the types of weights, is not asked of models of other frameworks; they are
    tested in a process of their own where their framework bears no torch beside it.
    """

    kind: ClassVar[type[Plugin]] = ModelPlugin
    any_classes: ClassVar[bool] = True

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls) -> TrainingData:
        """What the model is built for."""
        return tiny_data()

    @pytest.fixture(scope="class")
    @classmethod
    def state(cls, use: Use[ModelPlugin], data: TrainingData) -> ModelState:
        """The model as the plugin builds it."""
        return _built(use, data)

    def test_builds_a_module_for_the_data(self, use: Use[ModelPlugin], state: ModelState, data: TrainingData) -> None:
        assert state.framework == use.plugin.framework
        check_form(state, Form.MODULE)
        assert state.classes == data.classes
        assert state.preprocessing == data.preprocessing
        assert state.precision == "float32"

    def test_gives_logits_of_the_classes(self, state: ModelState, data: TrainingData) -> None:
        check_logits(state, data.validation)

    def test_head_follows_the_number_of_classes(self, use: Use[ModelPlugin], data: TrainingData) -> None:
        more = tiny_data(
            classes=len(data.classes) + 4,
            image_size=data.preprocessing.image_size,
            channels=1 if data.preprocessing.channels == 1 else 3,
        )
        if not self.any_classes:
            with pytest.raises(UserError):
                _built(use, more)
            return
        check_logits(_built(use, more), more.validation)

    def test_weights_follow_the_seed(self, use: Use[ModelPlugin], data: TrainingData, state: ModelState) -> None:
        assert state_digest(_built(use, data)) == state_digest(state)

    def test_every_weight_is_float32_and_finite(self, state: ModelState) -> None:
        torch = _torch_of(state)
        for name, parameter in state.module.named_parameters():
            assert parameter.dtype == torch.float32, name
            assert torch.isfinite(parameter).all(), name

    def test_can_be_trained(self, use: Use[ModelPlugin], data: TrainingData) -> None:
        """One step of gradient descent reaches the head."""
        state = _built(use, data)
        torch = _torch_of(state)
        batch = torch.from_numpy(data.preprocessing.normalize(data.train.pixels(range(4))))
        loss = state.task.loss((state.module.train()(batch),), torch.from_numpy(data.train.labels[:4]))
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [parameter.grad for parameter in state.module.parameters() if parameter.grad is not None]
        assert any(gradient.abs().sum() > 0 for gradient in gradients)

    def test_survives_the_store(self, state: ModelState, data: TrainingData, tmp_path: Path) -> None:
        """Stages hand models on through files."""
        save_state(state, tmp_path)
        loaded = load_state(tmp_path)
        assert loaded.classes == state.classes
        assert np.array_equal(logits_of(loaded, data.validation), logits_of(state, data.validation))

    def test_can_be_captured_for_any_batch(self, state: ModelState, data: TrainingData) -> None:
        check_logits(to_program(state, data.validation), data.validation)


def _built(use: Use[ModelPlugin], data: TrainingData) -> ModelState:
    """The model, built with everything random seeded as a run does it."""
    with seeded(0, use.plugin.framework):
        return use.plugin.build(use.options, data)


def _torch_of(state: ModelState) -> Any:
    """torch, for a model of PyTorch; skips a test of any other."""
    if state.framework != TORCH:
        pytest.skip(f"models of {state.framework} do not show their weights")
    import torch  # heavy: models of other frameworks are tested in processes without it

    return torch
