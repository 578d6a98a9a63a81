"""The search for widths: a map of every group alone, one threshold, the budget met, and the same bytes after a kill."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from training_samples import Steps, make_context, make_data, make_net, make_state, weights_of

from edgeopt.errors import NothingChangedError, TrainingError, UserError
from edgeopt.plugins.contexts import FULL_BUDGET, SMOKE_BUDGET
from edgeopt.plugins.declarations import PassPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import PassContract
from edgeopt.types import ModelState, TrainingData
from edgeopt_lightning.options import TrainOptions
from edgeopt_lightning.plugin import train
from edgeopt_pruning.structured.choice import Ranked, Rules
from edgeopt_pruning.structured.groups import ChannelGroup
from edgeopt_pruning.structured.width_sensitivity import (
    Candidate,
    Sensitivity,
    removal_at,
    smallest_threshold,
    thresholds_of,
)

LEVELS = (0.75, 0.5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> ModelState:
    context = make_context(tmp_path_factory.mktemp("trained"), make_data(240))
    return train(make_state(make_net()), TrainOptions(epochs=8, batch_size=16, learning_rate=1e-2), context)


def search(state: ModelState, work_dir: Path, progress=None, run_budget=FULL_BUDGET, **options: object) -> ModelState:
    values = {"epochs": 1, "batch_size": 16, "round_to": 1, "levels": LEVELS, **options}
    use = resolve(PassPlugin, "prune-search", values, load_registry())
    context = make_context(work_dir, progress=progress, budget=run_budget)
    return use.plugin.apply(state, use.options, context)


def facts(state: ModelState) -> dict[str, object]:
    return dict(state.history[-1].facts)


# ---- the threshold -------------------------------------------------------------------------------------------------


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    rules = Rules("local", draw(st.sampled_from([1, 4])), 0.2)
    found = []
    for number in range(draw(st.integers(1, 4))):
        units = draw(st.integers(5, 40))
        ranked = Ranked(ChannelGroup(f"layer{number}", units, 1, (), "a"), random.random(units))
        tried = {count: float(random.normal(0.1, 0.2)) for count in {units // 2, max(1, units // 3)}}
        found.append(Candidate.of(ranked, rules, Sensitivity.of(tried, units)))
    return found


@settings(max_examples=100, deadline=None)
@given(groups=candidates(), share=st.floats(0.3, 1.0))
def test_the_threshold_is_the_smallest_that_meets_the_budget(groups: list[Candidate], share: float) -> None:
    def left(removal) -> int:
        return sum(each.ranked.group.units - len(removal.get(each.ranked.group.name, ())) for each in groups)

    most = share * left({})
    threshold, removal, cost = smallest_threshold(groups, left, most)
    assert removal == removal_at(threshold, groups) and cost == left(removal)
    costs = [left(removal_at(each, groups)) for each in thresholds_of(groups)]
    assert costs == sorted(costs, reverse=True), "a higher threshold removes no less"
    meeting = [each for each, count in zip(thresholds_of(groups), costs, strict=True) if count <= most]
    assert threshold == (meeting[0] if meeting else thresholds_of(groups)[-1])
    for each in groups:
        gone = removal.get(each.ranked.group.name, ())
        kept = each.ranked.group.units - len(gone)
        assert each.degradation[each.kept.index(kept)] <= threshold
        importance = each.ranked.importance
        assert not gone or max(importance[list(gone)]) <= min(np.delete(importance, list(gone)))


def test_a_degradation_never_falls_when_more_goes() -> None:
    found = Sensitivity.of({8: 0.1, 6: 0.05, 4: 0.3, 9: -0.2}, 10)
    assert found.units == (4, 6, 8, 9, 10) and found.degradation == (0.3, 0.1, 0.1, 0.0, 0.0)
    assert found.at(5) == pytest.approx(0.2) and found.at(10) == 0


# ---- the pass ------------------------------------------------------------------------------------------------------


def half_idle() -> nn.Module:
    """The second convolution's channels 4 to 15 are read by nothing; the first one's all matter."""
    net = make_net()
    with torch.no_grad():
        net.get_submodule("head.1").weight[:, 4:] = 0
    return net


class TestPruneSearch(PassContract):
    """On a model that knows something, because no other one is searched."""

    name = "prune-search"
    options = {"epochs": 1, "batch_size": 16, "round_to": 1, "levels": [0.5]}  # noqa: RUF012

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls) -> TrainingData:
        return make_data()

    @pytest.fixture(scope="class")
    @classmethod
    def state(cls, trained: ModelState) -> ModelState:
        return trained


@pytest.mark.parametrize("degradation", ["loss", "metric"])
def test_what_nothing_reads_goes_first_and_the_budget_is_met(degradation: str, tmp_path: Path) -> None:
    context = make_context(tmp_path / "train", make_data(240))
    state = train(make_state(half_idle()), TrainOptions(epochs=8, batch_size=16, learning_rate=1e-2), context)
    with torch.no_grad():
        state.module.get_submodule("head.1").weight[:, 4:] = 0
    before = weights_of(state.module)
    found = search(state, tmp_path / "search", degradation=degradation, keep=0.5, importance="l1")
    assert weights_of(state.module) == before
    said = facts(found)
    assert 0.3 < said["macs_kept"] <= 0.5
    assert said["groups"] == 2 and said["trials"] == 6 and said["threshold"] >= 0
    by_group = found.history[-1].details["sensitivity"]["groups"]
    assert set(by_group) == {"features.0", "features.3"}
    assert by_group["features.0"]["units"] == [6, 4, 2] and by_group["features.3"]["units"] == [12, 8, 4]
    whole = found.history[-1].details["sensitivity"]["whole"]
    rises = {name: max(each["loss"]) - whole["loss"] for name, each in by_group.items()}
    assert rises["features.0"] > rises["features.3"]
    (curve,) = (each for each in found.history[-1].curves if each.name == "operations left")
    assert curve.x[0] == 0 and list(curve.y) == sorted(curve.y, reverse=True)
    json.dumps(asdict(found.history[-1]))


def test_an_earlier_search_is_replayed(trained: ModelState, tmp_path: Path) -> None:
    first = search(trained, tmp_path / "search", cost="parameters")
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"passes": [asdict(record) for record in first.history]}))
    options = {"epochs": 1, "batch_size": 16, "replay": str(report)}
    use = resolve(PassPlugin, "prune-structured", options, load_registry())
    again = use.plugin.apply(trained, use.options, make_context(tmp_path / "again"))
    assert weights_of(again.module) == weights_of(first.module)
    assert facts(again)["layers_changed"] == facts(first)["layers_changed"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", [1, 4, 9])
def test_a_killed_search_goes_on_to_the_same_bytes(at: int, trained: ModelState, tmp_path: Path, monkeypatch) -> None:
    """Killed in the map of six trials, and in the training after it; what was tried is not tried again."""
    from edgeopt_pruning.structured import search as module

    tried = []
    real = module._try
    monkeypatch.setattr(module, "_try", lambda *arguments: tried.append(arguments[1]) or real(*arguments))

    def kill() -> None:
        raise Killed

    whole = search(trained, tmp_path / "whole")
    every = [units for units in tried if units]
    tried.clear()
    with pytest.raises(Killed):
        search(trained, tmp_path / "killed", progress=Steps(at, kill))
    resumed = search(trained, tmp_path / "killed")
    assert [units for units in tried if units] == every
    assert weights_of(resumed.module) == weights_of(whole.module)
    assert resumed.history == whole.history


def test_a_smoke_run_tries_the_smallest_width_alone(trained: ModelState, tmp_path: Path) -> None:
    assert facts(search(trained, tmp_path, run_budget=SMOKE_BUDGET))["trials"] == 2


def test_a_model_at_chance_is_not_searched(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="for all of 45 validation images: there is nothing to search by") as caught:
        search(make_state(make_net()), tmp_path)
    assert "'train'" in caught.value.problems[0].hint


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"keep": 0.01}, UserError, "when all goes that may"),
        ({"budget": 1e12}, NothingChangedError, "already costs"),
        ({"round_to": 64}, NothingChangedError, "can be made narrower"),
        ({"protect": ("*",)}, NothingChangedError, "no channels that could be removed"),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(trained, options, error, text: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=text) as caught:
        search(trained, tmp_path, **options)
    assert all(problem.hint for problem in caught.value.problems)
