"""What a pass must keep."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from edgeopt.networks.saved import load_state, save_state
from edgeopt.plugins.contexts import PassContext
from edgeopt.plugins.declarations import PassPlugin, Plugin
from edgeopt.plugins.use import Use
from edgeopt.testing.contracts import PluginContract
from edgeopt.testing.states import check_form, check_outputs, outputs_of, seeded, state_digest
from edgeopt.testing.values import pass_context, require_own_state, tiny_data, tiny_model, tiny_program
from edgeopt.types import Form, ModelState, TrainingData

Apply = Callable[[ModelState], ModelState]


class PassContract(PluginContract):
    """Subclass it, set `name` and `options`; override `data` or `state` when the pass needs other ones. A pass for
    models of another framework than PyTorch is given one by `state`.

    A pass that does not repeat bit by bit even with a seed sets `deterministic` to False and says why.
    """

    kind: ClassVar[type[Plugin]] = PassPlugin
    deterministic: ClassVar[bool] = True

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls) -> TrainingData:
        """What the pass may see."""
        return tiny_data()

    @pytest.fixture(scope="class")
    @classmethod
    def state(cls, use: Use[PassPlugin], data: TrainingData) -> ModelState:
        """What the pass is given, in the form that it accepts."""
        require_own_state(use)
        return tiny_model(data) if use.plugin.accepts is Form.MODULE else tiny_program(data)

    @pytest.fixture(scope="class")
    @classmethod
    def context(cls, data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], PassContext]:
        """Makes a context with an empty folder to work in."""
        return lambda: pass_context(tmp_path_factory.mktemp("pass"), data)

    @pytest.fixture(scope="class")
    @classmethod
    def apply(cls, use: Use[PassPlugin], context: Callable[[], PassContext]) -> Apply:
        """Applies the pass with everything random seeded, as a run does it."""

        def apply(state: ModelState) -> ModelState:
            given = context()
            with seeded(given.seed, use.plugin.framework):
                return use.plugin.apply(state, use.options, given)

        return apply

    @pytest.fixture(scope="class")
    @classmethod
    def before(cls, state: ModelState) -> str:
        """What the weights of the given state were before the pass."""
        return state_digest(state)

    @pytest.fixture(scope="class")
    @classmethod
    def result(cls, state: ModelState, before: str, apply: Apply) -> ModelState:
        """What the pass gives."""
        assert before
        return apply(state)

    def test_gives_a_new_state_and_leaves_its_input_alone(
        self, state: ModelState, before: str, result: ModelState
    ) -> None:
        assert result is not state
        assert result.model is not state.model
        assert state_digest(state) == before

    def test_gives_the_form_that_it_declares(self, use: Use[PassPlugin], result: ModelState) -> None:
        assert result.framework == use.plugin.framework
        check_form(result, use.plugin.produces)

    def test_records_what_it_did(self, state: ModelState, result: ModelState) -> None:
        assert result.history[:-1] == state.history
        record = asdict(result.history[-1])
        assert record["name"]
        assert record["facts"]
        assert json.loads(json.dumps(record))["facts"] == json.loads(json.dumps(record["facts"]))

    def test_keeps_classes_and_preprocessing(self, state: ModelState, result: ModelState) -> None:
        assert result.classes == state.classes
        assert result.preprocessing == state.preprocessing

    def test_result_answers_as_its_task_asks(self, result: ModelState, data: TrainingData) -> None:
        check_outputs(result, data.validation)

    def test_changes_something(self, state: ModelState, before: str, result: ModelState) -> None:
        """A pass that changes nothing raises `NothingChangedError` instead."""
        assert result.form is not state.form or state_digest(result) != before

    def test_same_seed_gives_the_same(self, state: ModelState, result: ModelState, apply: Apply) -> None:
        if not self.deterministic:
            pytest.skip("the contract's subclass says that the pass does not repeat bit by bit")
        assert state_digest(apply(state)) == state_digest(result)

    def test_result_survives_the_store(self, result: ModelState, data: TrainingData, tmp_path: Path) -> None:
        """Stages hand states on through files."""
        save_state(result, tmp_path)
        loaded = load_state(tmp_path)
        assert loaded.history == result.history
        assert loaded.precision == result.precision
        pairs = zip(outputs_of(loaded, data.validation), outputs_of(result, data.validation), strict=True)
        for read, given in pairs:
            np.testing.assert_allclose(read, given, atol=1e-5)
