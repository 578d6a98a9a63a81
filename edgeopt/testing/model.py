"""What a source of models must keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from edgeopt.arrays import Json
from edgeopt.errors import UserError
from edgeopt.networks.capture import to_program
from edgeopt.networks.saved import load_state, save_state
from edgeopt.plugins.declarations import ModelPlugin, Plugin
from edgeopt.plugins.registry import Registry
from edgeopt.plugins.use import Use
from edgeopt.tasks import Task
from edgeopt.testing.contracts import PluginContract, task_named
from edgeopt.testing.states import check_form, check_outputs, outputs_of, seeded, state_digest
from edgeopt.testing.values import tiny_data
from edgeopt.types import TORCH, Form, ModelState, TrainingData

_ROUNDING = 1e-4  # of an output's range


class ModelContract(PluginContract):
    """Subclass it, set `name` and `options`; override `data` when the model needs larger images. A model of another
    task than classification, which is the first of its plugin's with its `task_options`, needs some `targets` too.

    `any_classes` is False for a source that has a head of its own, such as a file: built for more classes, it must
    refuse. What only PyTorch shows, such as the types of weights, is not asked of models of other frameworks; they are
    tested in a process of their own where their framework bears no torch beside it.
    """

    kind: ClassVar[type[Plugin]] = ModelPlugin
    any_classes: ClassVar[bool] = True
    task_options: ClassVar[Mapping[str, Json]] = {}

    @pytest.fixture(scope="class")
    @classmethod
    def task(cls, use: Use[ModelPlugin], registry: Registry) -> Task:
        """What the model is for."""
        return task_named(use.plugin.tasks[0], cls.task_options, registry)

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls, task: Task) -> TrainingData:
        """What the model is built for."""
        return tiny_data(task=task)

    @pytest.fixture(scope="class")
    @classmethod
    def targets(cls, data: TrainingData) -> Sequence[Any]:
        """Some targets as a data set of the task gives them, to take a step of training with."""
        if not data.task.is_of_classes:
            pytest.fail(f"override the fixture `targets`: some targets of the task {data.task.name}")
        labels: list[int] = data.train.labels[:4].tolist()
        return labels

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

    def test_answers_as_its_task_asks(self, state: ModelState, data: TrainingData) -> None:
        check_outputs(state, data.validation)

    def test_head_follows_the_number_of_classes(self, use: Use[ModelPlugin], data: TrainingData) -> None:
        more = tiny_data(
            classes=len(data.classes) + 4,
            image_size=data.preprocessing.image_size,
            channels=1 if data.preprocessing.channels == 1 else 3,
            task=data.task,
        )
        if not self.any_classes:
            with pytest.raises(UserError):
                _built(use, more)
            return
        state = _built(use, more)
        assert state.classes == more.classes
        check_outputs(state, more.validation)

    def test_weights_follow_the_seed(self, use: Use[ModelPlugin], data: TrainingData, state: ModelState) -> None:
        assert state_digest(_built(use, data)) == state_digest(state)

    def test_every_weight_is_float32_and_finite(self, state: ModelState) -> None:
        torch = _torch_of(state)
        for name, parameter in state.module.named_parameters():
            assert parameter.dtype == torch.float32, name
            assert torch.isfinite(parameter).all(), name

    def test_can_be_trained(self, use: Use[ModelPlugin], data: TrainingData, targets: Sequence[Any]) -> None:
        """One step of gradient descent reaches the head."""
        state = _built(use, data)
        torch = _torch_of(state)
        from edgeopt.networks.outputs import outputs_in  # as torch

        task, images = state.task, data.train.pixels(range(len(targets)))
        answer = state.module.train()(torch.from_numpy(data.preprocessing.normalize(images)))
        loss = task.loss(outputs_in(answer, state.output_names), task.batch(task.collected(targets)))
        assert loss.shape == ()
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [parameter.grad for parameter in state.module.parameters() if parameter.grad is not None]
        assert any(gradient.abs().sum() > 0 for gradient in gradients)

    def test_survives_the_store(self, state: ModelState, data: TrainingData, tmp_path: Path) -> None:
        """Stages hand models on through files."""
        save_state(state, tmp_path)
        loaded = load_state(tmp_path)
        assert loaded.classes == state.classes
        assert loaded.task == state.task
        assert loaded.output_names == state.output_names
        pairs = zip(outputs_of(loaded, data.validation), outputs_of(state, data.validation), strict=True)
        assert all(np.array_equal(read, given) for read, given in pairs)

    def test_can_be_captured_for_any_batch(self, state: ModelState, data: TrainingData) -> None:
        program = to_program(state, data.validation)
        check_outputs(program, data.validation)
        for count in (1, 3):
            pairs = zip(
                outputs_of(program, data.validation, count), outputs_of(state, data.validation, count), strict=True
            )
            for captured, given in pairs:
                np.testing.assert_allclose(captured, given, rtol=1e-3, atol=_ROUNDING * np.ptp(given) + _ROUNDING)


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
