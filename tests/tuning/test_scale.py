"""`benchmarks/scale.py` in its short form: a long study on many nodes costs each trial what a short one does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeopt.recipe.tune import Sampler
from edgeopt.tuning.trials import FILE

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scale() -> Any:
    sys.path.insert(0, str(BENCHMARKS))  # it has its bars from beside it
    try:
        spec = importlib.util.spec_from_file_location("scale", BENCHMARKS / "scale.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["scale"] = module  # where dataclasses look up their annotations
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("halving", [False, True])
def test_two_hundred_trials_on_fifty_nodes_are_those_of_one_node(scale: Any, tmp_path: Path, halving: bool) -> None:
    folders = [tmp_path / "fifty", tmp_path / "one"]
    for each in folders:
        each.mkdir()
    asked = [scale.Asked(nodes, 75, Sampler.TPE, halving=halving) for nodes in (50, 1)]
    many, one = (scale.simulate(each, folder, 200, page=False) for each, folder in zip(asked, folders, strict=True))
    assert [each.number for each in many.result.trials] == list(range(200))
    assert [(each.values, each.rungs) for each in many.result.trials] == [
        (each.values, each.rungs) for each in one.result.trials
    ]
    assert 0.1 < many.nodes.busy_share <= 1 and one.nodes.busy_share > many.nodes.busy_share
    going_on = scale.simulate(asked[0], folders[0], 210, page=False)
    assert going_on.result.trials[:200] == many.result.trials and len(going_on.nodes.worked) == 10


def test_what_a_trial_reads_and_writes_does_not_grow(scale: Any, tmp_path: Path) -> None:
    made = scale.simulate(scale.Asked(20, 30), tmp_path, 330, (100, 200, 300), page=False)
    assert [each.trials for each in made.marks] == [0, 100, 200, 300, 330]
    second, third = (after.cost - before.cost for before, after in zip(made.marks[1:3], made.marks[2:4], strict=True))
    assert third.written_bytes < 1.2 * second.written_bytes
    assert third.read_bytes < 1.2 * second.read_bytes + 10_000
    size = [each.file_bytes[FILE] for each in made.marks]
    assert size[3] - size[2] < 1.2 * (size[2] - size[1])
