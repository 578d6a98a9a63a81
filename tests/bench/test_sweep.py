"""Sweeps of `edgeopt bench`: files for other image sizes and more images in a call, and `[measure.sweep]`."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bench.swept_run import SIZE, SweptRun, make_run, scales_of
from conftest import TINY_PLUGIN, TINY_RECIPE
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

import edgeopt
from edgeopt.bench.request import BenchRequest
from edgeopt.bench.run import BenchResult, run_bench
from edgeopt.bench.terminal import render
from edgeopt.cli import app
from edgeopt.errors import ExportError
from edgeopt.networks.capture import capture
from edgeopt.networks.sizes import at_image_size
from edgeopt.options import MeasureSettings, to_json
from edgeopt.plugins import ExporterPlugin, Form, ModelState
from edgeopt.plugins.registry import Registry
from edgeopt.preprocessing import Preprocessing
from edgeopt.tasks import TASKS

pytestmark = pytest.mark.usefixtures("imports_done_once")

SETTINGS = MeasureSettings(warmup=1, runs=6, rounds=2)
LARGER = 24


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> SweptRun:
    return make_run(tmp_path_factory.mktemp("swept"), registry)


@pytest.fixture(scope="module")
def result(made: SweptRun) -> BenchResult:
    return run_bench(BenchRequest((made.file,), batches=(1, 2), sizes=(LARGER, SIZE), settings=SETTINGS))


def digits_at(size: int, registry: Registry) -> tuple[np.ndarray, np.ndarray]:
    """The test images of the run as Pillow brings them to a size, and their labels, by the data set itself."""
    from bench.swept_run import DATASET

    from edgeopt.data.splits import draw
    from edgeopt.plugins import DatasetPlugin
    from edgeopt.recipe.lookup import resolve

    options = {name: value for name, value in DATASET.items() if name != "use"}
    use = resolve(DatasetPlugin, "digits", options, registry)
    raw = use.plugin.load(use.options)
    drawing = draw(raw, use.options, None).splits["test"]
    preprocessing = Preprocessing(size, resize=size, crop=size)
    pixels = np.stack([preprocessing.pixels(raw.splits[drawing.source][int(index)]) for index in drawing.indices])
    return preprocessing.normalize(pixels), np.asarray(drawing.labels)


def test_accuracy_at_another_size_is_that_of_the_same_weights_there(
    made: SweptRun, result: BenchResult, registry: Registry
) -> None:
    images, labels = digits_at(LARGER, registry)
    (row,) = (row for row in result.bench.rows if row.image_size == LARGER)
    with torch.no_grad():
        answers = made.quantized(torch.from_numpy(images)).argmax(1).numpy()
    assert row.error is None and row.latency_ms is not None and row.made is not None
    assert row.made.answers.images == len(labels)
    assert row.test_accuracy == pytest.approx((answers == labels).mean(), abs=1.01 / len(labels))
    assert row.made.answers.agreement >= 0.95
    assert row.accuracy_interval is not None


def test_devices_take_files_of_all_sizes_and_their_images(made: SweptRun, result: BenchResult, tmp_path: Path) -> None:
    """Answers and times are of each size there; the program is that for the size, and so are the images."""
    asked = BenchRequest((made.file,), sizes=(LARGER,), devices=("local",), images=9, settings=SETTINGS, out=tmp_path)
    bench = run_bench(asked).bench
    here = {row.image_size: row for row in result.bench.rows if row.batch_size == 1}
    assert {row.image_size for row in bench.rows} == {SIZE, LARGER} == {row.image_size for row in bench.answered}
    for row in bench.rows:
        assert row.error is None and row.device == "local" and row.latency_ms is not None
        assert row.answers is not None and row.answers.images == 9
        assert row.answers.agreement >= 0.85  # at most one of nine
        assert row.answers.differing == 0 == row.answers.max_logit_difference  # the same file on the same machine
        assert row.size_bytes == here[row.image_size].size_bytes
        assert (row.made is None) == (row.image_size == SIZE)
    assert {row.file for row in bench.whole} == {row.file for row in bench.rows}
    page = (tmp_path / "bench.html").read_text()
    assert "Latency by image size with 1 thread on local" in page
    assert "Accuracy on the test split at each image size on local" in page


def test_scales_are_the_same_numbers(made: SweptRun, result: BenchResult) -> None:
    (row,) = (row for row in result.bench.rows if row.image_size == LARGER)
    assert row.made is not None
    path = result.folder / row.made.path
    own = scales_of(made.file)
    assert scales_of(path) == own
    assert len(own) > 20
    card = json.loads((path.parent / "card.json").read_text())
    assert card["preprocessing"]["image_size"] == card["input"]["shape"][-1] == LARGER


def test_a_file_for_one_image_is_made_for_two(result: BenchResult) -> None:
    (row,) = (row for row in result.bench.rows if row.batch_size == 2)
    assert row.latency_ms is not None and row.latency_ms.batch_size == 2
    assert row.image_size == SIZE
    assert row.made is not None and (result.folder / row.made.path).is_file()


def test_curves_tables_and_csv_have_the_sizes(result: BenchResult) -> None:
    page = (result.folder / "bench.html").read_text()
    assert "Latency by image size with 1 thread" in page
    assert "Accuracy on the test split at each image size" in page
    lines = list(csv.DictReader(io.StringIO((result.folder / "bench.csv").read_text())))
    swept = [line for line in lines if line["image_size"] == str(LARGER)]
    assert len(swept) == 1
    assert all(line["made_file"].startswith("files/") and line["images"] for line in swept)
    stored = json.loads((result.folder / "bench.json").read_text())
    assert {row["image_size"] for row in stored["rows"]} == {SIZE, LARGER}


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_figure_is_cut_in_the_terminal(result: BenchResult, width: int) -> None:
    console = Console(width=width, file=io.StringIO())
    render(result.bench, console, [])
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= width
    for row in result.bench.rows:
        assert row.latency_ms is not None and row.latency_ms.images_per_s is not None
        assert f"{row.latency_ms.images_per_s:.4g}" in said


def test_changed_images_are_no_test_of_the_same(made: SweptRun, tmp_path: Path) -> None:
    report = made.folder / "report.json"
    kept = report.read_text()
    values = json.loads(kept)
    values["recipe"]["resolved"]["dataset"] |= {"use": "stripes", "images": 1797}
    try:
        report.write_text(json.dumps(values))
        request = BenchRequest(
            (made.file,), sizes=(LARGER,), settings=SETTINGS, out=tmp_path, plugin_files=(TINY_PLUGIN,)
        )
        rows = run_bench(request).bench.rows
    finally:
        report.write_text(kept)
    assert {row.error is None for row in rows if row.image_size == SIZE} == {True}
    for row in rows:
        if row.image_size == LARGER:
            assert "no longer those that the run was tested on" in (row.error or "")
            assert row.test_accuracy is None


# ---- networks of one size ------------------------------------------------------------------------------------------


class Positions(nn.Module):
    """A vision transformer's beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, 4)
        self.pos_embed = nn.Parameter(torch.randn(1, 16, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((self.patches(x).flatten(2).transpose(1, 2) + self.pos_embed).mean(1))


class PadsBySize(nn.Module):
    """Pads as TensorFlow's "same" does, so that what it adds depends on the size of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Conv2d(3, 6, 3, 2), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = max((-(-x.shape[-1] // 2) - 1) * 2 + 3 - x.shape[-1], 0)
        padded = nn.functional.pad(x, (total // 2, total - total // 2) * 2)
        return self.head(torch.relu(self.layer(padded)).mean((2, 3)))


def states_of(module: nn.Module) -> tuple[ModelState, ModelState]:
    preprocessing = Preprocessing(SIZE, resize=SIZE, crop=SIZE)
    state = ModelState(module.eval(), Form.MODULE, TASKS["classification"], ("a", "b", "c"), preprocessing)
    program = capture(module, torch.randn(2, 3, SIZE, SIZE), state.batch_range)
    return state, replace(state, model=program, form=Form.PROGRAM)


def test_position_embeddings_are_named() -> None:
    origin, program = states_of(Positions())
    with pytest.raises(ExportError, match=r"Positions takes images of 16 px alone.* pos_embed \(1 × 16 × 6\)") as told:
        at_image_size(program, origin, 24, is_fixed=False)
    assert told.value.problems[0].hint


def test_what_a_network_works_out_from_the_size_is_not_kept_for_another() -> None:
    """Captured anew, a network pads as it should; a program with fixed arithmetic would pad as before, unless that is
    the same.
    """
    origin, program = states_of(PadsBySize())
    again = at_image_size(program, origin, 15, is_fixed=False)
    images = torch.randn(2, 3, 15, 15)
    with torch.no_grad():
        assert torch.allclose(again.program.module()(images), origin.module(images), atol=1e-6)
    with pytest.raises(ExportError, match=r"PadsBySize works out aten\.pad\.default from the size of an image"):
        at_image_size(program, origin, 15, is_fixed=True)
    fixed = at_image_size(program, origin, 24, is_fixed=True)
    assert fixed.preprocessing.image_size == 24


def test_a_layer_over_all_places_is_named_and_other_rows_are_measured(finished: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(
        app,
        [
            *("bench", str(finished / "npz" / "optimized" / "model.npz"), "--size", "24"),
            *("--runs", "5", "--out", str(tmp_path)),
            *("--plugin", str(TINY_PLUGIN)),
        ],
    )
    assert told.exit_code == 0
    said = " ".join(told.stdout.split())
    assert "with 24 px: Sequential takes images of 16 px alone, and none of 24 px" in said
    assert "1 takes 768 values, all places of an image of 16 px" in said
    stored = json.loads((tmp_path / "bench.json").read_text())
    assert [row["error"] is None for row in stored["rows"]] == [True, False]


# ---- [measure.sweep] -----------------------------------------------------------------------------------------------


SWEEP = TINY_RECIPE + "\n[measure.sweep]\nbatches = [3]\nthreads = [2]\n"


def test_mistakes_in_a_sweep_have_their_lines(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    wrong = '\n[measure.sweep]\nsizes = [24, 4]\nbatchs = [1]\nsustained = "soon"\n'
    recipe.write_text(TINY_RECIPE + wrong)
    start = len(TINY_RECIPE.splitlines()) + 2
    told = CliRunner().invoke(app, ["check", str(recipe), "--plugin", str(TINY_PLUGIN)])
    assert told.exit_code == 2
    said = " ".join(told.stderr.split())
    assert f"recipe.toml:{start + 1}: measure.sweep.sizes.1: " in said
    assert f"recipe.toml:{start + 2}: unknown key 'measure.sweep.batchs'" in said
    assert f"recipe.toml:{start + 3}: measure.sweep.sustained: 'soon' is no time up to a day" in said
    recipe.write_text(TINY_RECIPE + 'protocol = "single-stream"\n\n[measure.sweep]\nbatches = [1, 2]\n')
    told = CliRunner().invoke(app, ["check", str(recipe), "--plugin", str(TINY_PLUGIN)])
    assert "single-stream" in told.stderr and told.exit_code == 2


def test_a_recipe_without_a_sweep_is_what_it_was(tmp_path: Path) -> None:
    """And one with a sweep makes and measures nothing anew: its report alone says another thing."""
    assert "sweep" not in to_json(MeasureSettings())
    (tmp_path / "plain.toml").write_text(TINY_RECIPE)
    (tmp_path / "swept.toml").write_text(SWEEP)
    plain, swept = (edgeopt.check(tmp_path / name, plugin_files=[TINY_PLUGIN]) for name in ("plain.toml", "swept.toml"))
    assert "sweep" not in plain.resolved()["measure"]
    differing = {name for name, stage in plain.stages.items() if stage.key != swept.stages[name].key}
    assert differing == {"report"}


def test_a_run_sweeps_its_files_once_and_bench_does_it_again(finished: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "swept.toml"
    recipe.write_text(SWEEP.replace('name = "tiny"', 'name = "tiny-swept"\nbaseline = false'))
    arguments = ["run", str(recipe), "--out", str(finished.parent), "--plugin", str(TINY_PLUGIN)]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.stderr
    bench = finished.parent / "tiny-swept" / "bench" / "bench.json"
    rows = json.loads(bench.read_text())["rows"]
    assert [(row["batch_size"], row["threads"]) for row in rows] == [(3, 2)]
    assert rows[0]["latency_ms"]["runs"] == 5
    first = bench.stat().st_mtime_ns
    edgeopt.run(recipe, out=finished.parent, plugin_files=[TINY_PLUGIN])
    assert bench.stat().st_mtime_ns == first
    bench.unlink()
    edgeopt.run(recipe, out=finished.parent, plugin_files=[TINY_PLUGIN])
    assert bench.stat().st_mtime_ns > first
    told = CliRunner().invoke(app, ["bench", str(finished.parent / "tiny-swept"), "--plugin", str(TINY_PLUGIN)])
    assert told.exit_code == 0
    assert bench.stat().st_mtime_ns > first
    assert len(json.loads(bench.read_text())["rows"]) == 1


def test_exporters_make_files_for_more_images_by_options_of_their_own(registry: Registry) -> None:
    plugins = [registry.get(ExporterPlugin, name) for name in registry.names(ExporterPlugin)]
    able = {plugin.name: plugin.for_batch(plugin.options(), 4) for plugin in plugins if plugin.for_batch}
    assert {"onnx", "executorch"} <= set(able)
    assert all(isinstance(options, registry.get(ExporterPlugin, name).options) for name, options in able.items())
    assert able["executorch"].max_batch == 4
    assert "tflite" not in able, "LiteRT's files take one image in a call"
