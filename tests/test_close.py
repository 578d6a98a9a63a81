"""Whatever opens a file closes it again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edgeopt.errors import PluginBugError
from edgeopt.export.trial_files import TrialFiles
from edgeopt.measure.latency import serve
from edgeopt.pipeline.request import RunRequest
from edgeopt.pipeline.runner import run
from edgeopt.plugins import ExporterPlugin, Use
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import pass_context, tiny_data, tiny_model

pytestmark = pytest.mark.usefixtures("imports_done_once")

TINY_PLUGIN = Path(__file__).with_name("tiny_plugin.py")

PLUGIN = """
import dataclasses
import runpy
from pathlib import Path

import edgeopt

TINY = runpy.run_path({tiny!r})


class Counting:
    def __init__(self, path):
        self.inner = TINY["NpzPredictor"](path)
        Path({counts!r}).open("a").write("open\\n")

    def predict(self, batch):
        return self.inner.predict(batch)

    def close(self):
        Path({counts!r}).open("a").write("close\\n")


@edgeopt.hookimpl
def edgeopt_exporters():
    (npz,) = TINY["edgeopt_exporters"]()
    yield dataclasses.replace(npz, name="counting", open=lambda path, threads: Counting(path))
"""


@pytest.fixture
def counting(tmp_path):
    """The plugin file, and what its predictors counted."""
    counts, file = tmp_path / "counts.txt", tmp_path / "counting.py"
    file.write_text(PLUGIN.format(tiny=str(TINY_PLUGIN), counts=str(counts)))
    return file, lambda: counts.read_text().split()


def test_a_run_closes_what_it_verifies_and_times(counting, tiny_recipe, tmp_path):
    file, counted = counting
    text = tiny_recipe.read_text().replace('use = "npz"', 'use = "counting"')
    tiny_recipe.write_text(text)
    plugin_files = (TINY_PLUGIN, file)
    run(RunRequest(tiny_recipe, ("baseline=false",), out=tmp_path / "runs", plugin_files=plugin_files))
    assert counted().count("open") == counted().count("close") == 2  # one file, verified and timed


def test_trial_files_are_closed_one_by_one_or_together(tmp_path):
    events = []

    class Predictor:
        def __init__(self, path):
            self.number = path.parent.name

        def predict(self, batch):
            return batch

        def close(self):
            events.append(self.number)

    onnx = resolve(ExporterPlugin, "onnx", {}, load_registry())
    plugin = dataclasses.replace(onnx.plugin, open=lambda path, threads: Predictor(path))
    data = tiny_data()
    with TrialFiles(Use(plugin, onnx.options), pass_context(tmp_path, data)) as files:
        first, _second = files.write(tiny_model(data)), files.write(tiny_model(data))
        files.discard(first)
        assert events == ["1"]
    assert events == ["1", "2"]


def test_a_predictor_without_close_and_one_whose_call_fails(registry):
    import numpy as np

    events = []

    class Failing:
        def predict(self, batch):
            raise ZeroDivisionError

        def close(self):
            events.append("closed")

    npz = registry.get(ExporterPlugin, "npz")
    plugin = dataclasses.replace(npz, open=lambda path, threads: Failing())
    with pytest.raises(PluginBugError, match="ZeroDivisionError"):
        serve(plugin, Path("x"), np.zeros((1, 3)), 1, 1, iter(["open"]), lambda event: None)
    assert events == ["closed"]
    bare = dataclasses.replace(npz, open=lambda path, threads: object())
    with bare.opened(Path("x"), 1) as predictor:
        assert not hasattr(predictor, "close")
