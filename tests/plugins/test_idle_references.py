"""A plugin that an option refers to need not be installed where the options as a whole do not look at it."""

from __future__ import annotations

from typing import Any

import pytest

from edgeopt.errors import Problem, RecipeError
from edgeopt.plugins.declarations import ExporterPlugin, PassPlugin, Plugin
from edgeopt.plugins.registry import load_registry
from edgeopt.plugins.use import references
from edgeopt.plugins.versions import versions_behind
from edgeopt.recipe import lookup
from edgeopt.recipe.lookup import resolve

ONNX = "exporter 'onnx' needs onnx, which is not installed"


@pytest.fixture
def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without the packages of the exporter `onnx`, the default of the options below."""
    monkeypatch.setattr(
        lookup,
        "missing_problem",
        lambda plugin: Problem(ONNX, "pip install 'edgeopt[onnx]'") if _is_onnx(plugin) else None,
    )


def _is_onnx(plugin: Plugin) -> bool:
    return isinstance(plugin, ExporterPlugin) and plugin.name == "onnx"


@pytest.mark.usefixtures("without_onnx")
@pytest.mark.parametrize(
    ("name", "options"),
    [("ptq", {}), ("prune-structured", {}), ("prune-structured", {"cost": "parameters"}), ("prune-search", {})],
)
def test_what_is_not_looked_at_need_not_be_there(name: str, options: dict[str, Any]) -> None:
    use = resolve(PassPlugin, name, options, load_registry())
    assert not any(_is_onnx(inner.plugin) for inner in references(use))
    assert "onnxruntime" not in versions_behind([use]), "no key of its result tells of a runtime that it does not use"


@pytest.mark.usefixtures("without_onnx")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ptq", {"max_accuracy_drop": 0.01}),
        ("prune-structured", {"cost": "bytes"}),
        ("prune-structured", {"cost": "latency"}),
        ("prune-structured", {"cost": "latency", "runtime": "onnx"}),
    ],
)
def test_what_is_looked_at_must_be_there(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="needs onnx"):
        resolve(PassPlugin, name, options, load_registry())


def test_a_reference_that_is_looked_at_is_among_those_behind_the_result() -> None:
    use = resolve(PassPlugin, "prune-structured", {"cost": "bytes"}, load_registry())
    assert any(_is_onnx(inner.plugin) for inner in references(use))
    assert "onnxruntime" in versions_behind([use])
