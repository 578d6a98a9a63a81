"""A bug of a plugin's function is told as that plugin's, wherever a worker calls it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import TINY_PLUGIN, TINY_RECIPE

import edgeopt
from edgeopt.errors import PluginBugError
from edgeopt.pipeline.stages import Workbench
from edgeopt.plugins.blame import BlamedPredictor
from edgeopt.progress import Silent
from edgeopt.workers.store import Store

#: What takes the place of a function of the tiny plugins, and the stage that calls it.
FUNCTIONS = {
    "load_stripes": ("data", "load of dataset 'stripes'"),
    "build_linear": ("model", "build of model 'linear'"),
    "fit_stripes": ("pass-0", "apply of pass 'fit-stripes'"),
    "export_npz": ("export", "export of exporter 'npz'"),
    "NpzPredictor": ("verify", "open of exporter 'npz'"),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_bug_in_a_worker_names_the_plugin(function: str, tmp_path: Path) -> None:
    kind, message = FUNCTIONS[function]
    plugin, recipe = tmp_path / "buggy.py", tmp_path / "recipe.toml"
    bug = f"\n\ndef {function}(*_):\n    return {{}}['nothing']\n\n\n@hookimpl\ndef edgeopt_datasets("
    code = TINY_PLUGIN.read_text()
    plugin.write_text(bug.join(code.split("\n\n@hookimpl\ndef edgeopt_datasets(")))
    recipe.write_text(TINY_RECIPE)
    bench = Workbench(edgeopt.check(recipe, plugin_files=[plugin]), Store(tmp_path / "store"), Silent())
    with pytest.raises(PluginBugError, match=f"^{message}: KeyError: 'nothing'$"):
        for stage in bench.plan.stages.values():
            bench.do(stage)
    assert stage.name.startswith(kind)


def test_a_bug_of_a_predictor_names_the_exporter() -> None:
    class Dividing:
        def predict(self, batch: object) -> float:
            return 1 / 0

    with pytest.raises(PluginBugError, match=r"^predict of exporter 'npz': ZeroDivisionError"):
        BlamedPredictor(_Npz(), Dividing()).predict(None)


class _Npz:
    kind, name = "exporter", "npz"
