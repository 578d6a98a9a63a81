"""The whole way of an image on a device ends at the answer of the run's own task, which is the answer here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_PLUGIN

import edgeopt
from edgeopt.bench.request import BenchRequest
from edgeopt.bench.run import BenchResult, run_bench
from edgeopt.json_values import to_values
from edgeopt.measure.answers import feeder
from edgeopt.options import MeasureSettings
from edgeopt.plugins.registry import Registry, load_registry
from edgeopt.plugins.task import TaskPlugin
from edgeopt.preprocessing import Preprocessing
from edgeopt.recipe.card_task import task_of_card
from edgeopt.report.finished_files import FinishedFile, find_files
from edgeopt.testing.there import answers_there

pytestmark = pytest.mark.usefixtures("imports_done_once")

TESTS = Path(__file__).parents[1]
PLUGINS = (TINY_PLUGIN, TESTS / "small_detector_plugin.py", TESTS / "task_parts.py")
RECIPE = """\
schema = 1
name = "{name}"
{task}
[dataset]
use = "{dataset}"
{images}
image_size = {size}

[model]
{model}

[[exports]]
use = "onnx"
{inside}
[measure]
threads = 1
warmup = 1
runs = 5
rounds = 1
"""
INSIDE = """
[[exports]]
use = "onnx"
name = "inside"
ends = "{}"
"""
RECIPES: Mapping[str, Mapping[str, object]] = {
    "detection": {
        "task": '[task]\nuse = "detection"\nshown_score = 0.1',
        "dataset": "shapes-boxes",
        "images": "images = 60\ndrawn_size = 48",
        "size": 48,
        "model": 'use = "small-detector"',
        "inside": INSIDE.format("boxes"),
    },
    "segmentation": {
        "task": "",
        "dataset": "shapes-masks",
        "images": "images = 40\ndrawn_size = 32",
        "size": 32,
        "model": 'use = "segmenter"\narch = "unet"\nwidth = 4\ndepth = 1',
        "inside": INSIDE.format("classes"),
    },
    "level": {
        "task": "",
        "dataset": "levels",
        "images": "",
        "size": 16,
        "model": 'use = "any-net"',
        "inside": "",
    },
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A finished run of untrained networks for each task."""
    folder = tmp_path_factory.mktemp("tasks")
    found = {}
    for name, values in RECIPES.items():
        recipe = folder / f"{name}.toml"
        recipe.write_text(RECIPE.format(name=name, **values))
        found[name] = edgeopt.run(recipe, out=folder / "runs", plugin_files=PLUGINS).folder
    return found


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(PLUGINS)


@pytest.fixture(scope="module")
def files(runs: Mapping[str, Path], registry: Registry) -> tuple[FinishedFile, ...]:
    return find_files(tuple(runs.values()), registry).files


@pytest.fixture(scope="module")
def result(runs: Mapping[str, Path], finished: Path, tmp_path_factory: pytest.TempPathFactory) -> BenchResult:
    """All of them, and the tiny run of a classifier, on this machine as a device."""
    request = BenchRequest(
        (*runs.values(), finished),
        devices=("local",),
        images=4,
        settings=MeasureSettings(warmup=1, runs=5, rounds=1),
        out=tmp_path_factory.mktemp("out"),
        plugin_files=PLUGINS,
    )
    return run_bench(request)


def test_every_part_of_the_way_is_timed(result: BenchResult, files: tuple[FinishedFile, ...]) -> None:
    """Of detectors and segmenters, also of files that end at answers, and of the classifier beside them."""
    rows = {row.file: row for row in result.bench.whole}
    assert len(rows) == 2 + 2 + 1 + 2
    tasks = {file.name: file.card.task for file in files}
    for name, row in rows.items():
        if tasks.get(name) == "level":
            continue
        way = row.pipeline_ms
        assert way is not None, row.error
        assert min(way.decode, way.preprocess, way.file, way.answer) > 0
    assert sum(task in ("detection", "segmentation") for task in tasks.values()) == 4


def test_a_task_that_has_nothing_to_send_is_told(result: BenchResult, files: tuple[FinishedFile, ...]) -> None:
    """It is not timed as if it were a classifier's; all else is measured."""
    (name,) = (file.name for file in files if file.card.task == "level")
    (row,) = (row for row in result.bench.whole if row.file == name)
    assert row.pipeline_ms is None
    assert row.error == (
        "the answer is not timed there because the task level has no code for devices (TaskPlugin.device_modules): "
        "see docs/tasks.md"
    )
    (timed,) = (each for each in result.bench.rows if each.file == name)
    assert timed.latency_ms is not None
    assert timed.error is None


def test_answers_there_are_those_of_the_task_here(files: tuple[FinishedFile, ...], registry: Registry) -> None:
    """What the task's modules make of a file's outputs, with nothing but the file's card to go by."""
    seen = set()
    for file in files:
        modules = registry.get(TaskPlugin, file.card.task).device_modules
        if not modules:
            continue
        assert file.card.input is not None
        preprocessing = Preprocessing.from_json(file.card.preprocessing)
        noise = np.random.default_rng(0).integers(0, 256, (1, *preprocessing.shape), dtype=np.uint8)
        with file.exporter.opened(file.path, 1) as predictor:
            outputs = predictor.predict(feeder(file.card.input.holds, preprocessing)(noise))
        task = task_of_card(file.card, registry, file.name)
        here = [to_values(answer) for answer in task.decode(outputs)]
        (answer,) = answers_there(modules, outputs, file.card.decision)
        assert [answer] == here
        assert answer.get("objects") or answer.get("shares"), f"{file.name} finds nothing that could differ"
        seen.add((file.card.task, len(outputs), outputs[0].ndim))
    assert seen == {("detection", 2, 3), ("detection", 4, 3), ("segmentation", 1, 4), ("segmentation", 1, 3)}
