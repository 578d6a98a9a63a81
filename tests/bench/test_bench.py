"""`edgeopt bench` on runs of the tiny plugins."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import TINY_PLUGIN
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

import edgeopt
from edgeopt.bench.layers import side_by_side
from edgeopt.bench.page import render_page
from edgeopt.bench.request import BenchRequest
from edgeopt.bench.run import BenchResult, is_measured, run_bench
from edgeopt.bench.sustained import pieces
from edgeopt.bench.terminal import render
from edgeopt.cli import app
from edgeopt.errors import ExitCode, UserError
from edgeopt.measure.state import MachineState, machine_state
from edgeopt.options import MeasureSettings
from edgeopt.types import Role

pytestmark = pytest.mark.usefixtures("imports_done_once")

SETTINGS = MeasureSettings(warmup=1, runs=6, rounds=3)


@pytest.fixture(scope="module")
def result(finished: Path) -> BenchResult:
    request = BenchRequest(
        (finished,),
        batches=(1, 4),
        threads=(1, 2),
        sustained_s=0.5,
        operators=True,
        settings=SETTINGS,
        plugin_files=(TINY_PLUGIN,),
    )
    return run_bench(request)


def test_every_file_has_a_row_for_each_number_of_images_and_threads(result: BenchResult) -> None:
    rows = result.bench.rows
    assert {(row.role, row.batch_size, row.threads) for row in rows} == {
        (role, batch, threads) for role in Role for batch in (1, 4) for threads in (1, 2)
    }
    for row in rows:
        assert row.error is None
        latency = row.latency_ms
        assert latency is not None
        assert (latency.batch_size, latency.threads, latency.runs) == (row.batch_size, row.threads, 6)
        assert latency.load is not None
        assert latency.first is not None
        assert latency.images_per_s is not None
        assert 0 < latency.p50 <= latency.p90 <= (latency.p99 or 0)
        assert min(latency.load, latency.first, latency.images_per_s) > 0
        assert (row.faster is None) == (row.role is Role.BASELINE)
        assert row.test_accuracy is not None


def test_layers_stand_side_by_side(result: BenchResult) -> None:
    """Of each file the operators, and of the optimized one the float file beside it, with the same threads."""
    rows = result.bench.operators
    assert [(row.file.split("/")[2], row.threads) for row in rows] == [
        (role, threads) for threads in (1, 2) for role in ("baseline", "optimized")
    ]
    for row in rows:
        assert row.error is None
        assert [each.name for each in row.operators] == ["product", "sum"]
        assert list(row.by_layer) == ["linear", "Sum"]
        assert row.total_ms == pytest.approx(sum(each.ms for each in row.operators))
        assert (row.float_file is None) == ("/baseline/" in row.file)
    pairs = [*side_by_side(result.bench)]
    assert [pair.threads for pair in pairs] == [1, 2]
    for pair in pairs:
        assert pair.before is not None and pair.after is not None
        linear = next(layer for layer in pair.layers if layer.name == "linear")
        assert linear.float_ms == pair.before.operators[0].ms
        assert linear.optimized_ms == pair.after.operators[0].ms
        assert linear.faster == pytest.approx(linear.float_ms / linear.optimized_ms)
    page = (result.folder / "bench.html").read_text()
    assert "Layers and operators" in page
    assert page.count(": what costs most</strong>") == 2


def test_a_runtime_that_does_not_tell_says_so(result: BenchResult) -> None:
    untold = tuple(replace(row, operators=(), error="numpy does not tell") for row in result.bench.operators)
    bench = replace(result.bench, operators=untold)
    assert [*side_by_side(bench)] == []
    assert "numpy does not tell" in render_page(bench)
    console = Console(width=200, record=True, file=io.StringIO())
    render(bench, console, [])
    assert "numpy does not tell" in console.export_text()


def test_the_whole_way_holds_the_files_own_share(result: BenchResult) -> None:
    assert len(result.bench.whole) == 4
    for row in result.bench.whole:
        way = row.pipeline_ms
        assert way is not None
        assert min(way.decode, way.preprocess, way.file, way.answer) > 0
        assert way.total > max(way.decode, way.preprocess, way.file, way.answer)
        assert 0 < way.file_share < 0.9, "a tiny file beside a picture of 640 px that is decoded"


def test_calls_without_a_pause_last_as_long_as_asked_for(result: BenchResult) -> None:
    for row in result.bench.sustained:
        (minute,) = row.minutes
        assert minute.minute == pytest.approx(0.5 / 60)
        assert minute.calls * minute.p50_ms < 2000
        assert minute.calls > 20
        assert row.slowdown == 1


def test_the_tables_on_disk_say_the_same(result: BenchResult) -> None:
    stored = json.loads((result.folder / "bench.json").read_text())
    lines = list(csv.DictReader(io.StringIO((result.folder / "bench.csv").read_text())))
    assert [row["file"] for row in stored["rows"]] == [line["file"] for line in lines]
    for row, line in zip(result.bench.rows, lines, strict=True):
        assert row.latency_ms is not None
        assert float(line["p50_ms"]) == pytest.approx(row.latency_ms.p50, rel=1e-4)
        assert float(line["images_per_s"]) == pytest.approx(row.latency_ms.images_per_s, rel=1e-4)
        assert int(line["batch_size"]) == row.batch_size
    page = (result.folder / "bench.html").read_text()
    assert "Images per second with 1 thread" in page
    assert "The whole way of one image" in page
    assert not re.search(r"(src|href)=\"(?!#|data:)", page), "the page loads nothing from elsewhere"


def test_results_lie_below_the_run_and_do_not_hinder_it(result: BenchResult, finished: Path) -> None:
    assert result.folder == finished / "bench"
    again = edgeopt.run(finished.parents[1] / "recipe.toml", out=finished.parent, plugin_files=[TINY_PLUGIN])
    assert again.folder == finished
    assert (finished / "bench" / "bench.json").is_file()


def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("bench")))


def test_a_broken_file_fails_its_own_rows(finished: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("L", (40, 30), 90).save(tmp_path / "mine.png")
    run = copied(finished, tmp_path)
    (run / "npz" / "optimized" / "model.npz").write_bytes(b"no archive")
    request = BenchRequest(
        (run,), sustained_s=0.1, image=tmp_path / "mine.png", settings=SETTINGS, plugin_files=(TINY_PLUGIN,)
    )
    bench = run_bench(request).bench
    assert bench.image == "mine.png"
    by_role = {row.role: row for row in bench.rows}
    assert by_role[Role.BASELINE].latency_ms is not None
    assert by_role[Role.OPTIMIZED].latency_ms is None
    assert "latency" in (by_role[Role.OPTIMIZED].error or "")
    failed = {row.file for row in (*bench.whole, *bench.sustained) if row.error}
    assert failed == {by_role[Role.OPTIMIZED].file}


def test_a_benchmark_without_a_figure_is_a_failure(finished: Path, tmp_path: Path) -> None:
    """Whoever asks for many figures and gets some reads why of the others; one that has none must not pass for done."""
    run = copied(finished, tmp_path)
    files = [str(file) for role in ("baseline", "optimized") if (file := run / "npz" / role / "model.npz").is_file()]
    for file in files:
        Path(file).write_bytes(b"no archive")
    command = ["bench", str(run), "--runs", "5", "--plugin", str(TINY_PLUGIN)]
    told = CliRunner().invoke(app, command)
    assert len(files) == 2
    assert told.exit_code == ExitCode.BUG, "the plugin of these files raises whatever NumPy does"
    assert "latency: " in told.stderr
    assert (run / "bench" / "bench.html").is_file()
    assert not is_measured(BenchRequest((run,), settings=MeasureSettings(runs=5), plugin_files=(TINY_PLUGIN,)))


def test_a_file_for_one_image_says_that_it_takes_no_more(finished: Path, tmp_path: Path) -> None:
    run = copied(finished, tmp_path)
    card = run / "npz" / "optimized" / "card.json"
    values = json.loads(card.read_text())
    values["input"]["shape"][0] = 1
    card.write_text(json.dumps(values))
    request = BenchRequest((run,), batches=(1, 2), settings=SETTINGS, plugin_files=(TINY_PLUGIN,))
    rows = {(row.role, row.batch_size): row for row in run_bench(request).bench.rows}
    assert rows[Role.OPTIMIZED, 1].latency_ms is not None
    assert rows[Role.OPTIMIZED, 2].latency_ms is None
    assert "at most one image in a call" in (rows[Role.OPTIMIZED, 2].error or "")
    assert rows[Role.BASELINE, 2].latency_ms is not None


def test_an_image_goes_the_whole_way_through_a_file_that_is_timed_nowhere_else(finished: Path, tmp_path: Path) -> None:
    run = copied(finished, tmp_path)
    card = run / "npz" / "optimized" / "card.json"
    values = json.loads(card.read_text())
    values["input"]["shape"][0] = 1
    card.write_text(json.dumps(values))
    request = BenchRequest((run,), batches=(2,), settings=SETTINGS, plugin_files=(TINY_PLUGIN,))
    bench = run_bench(request).bench
    assert {row.role for row in bench.rows if row.error} == {Role.OPTIMIZED}
    assert [row.error for row in bench.whole] == [None, None]
    assert all(row.pipeline_ms is not None and row.pipeline_ms.total > 0 for row in bench.whole)


def test_two_runs_of_the_same_float_file_are_both_compared_with_it(finished: Path, tmp_path: Path) -> None:
    recipe = finished.parents[1] / "recipe.toml"
    coarse = edgeopt.run(
        recipe, overrides=['name="coarse"', "passes.1.steps=8"], out=finished.parent, plugin_files=[TINY_PLUGIN]
    )
    request = BenchRequest(
        (finished, coarse.folder), out=tmp_path / "out", settings=SETTINGS, plugin_files=(TINY_PLUGIN,)
    )
    bench = run_bench(request).bench
    assert [row.role for row in bench.rows].count(Role.BASELINE) == 1
    optimized = [row for row in bench.rows if row.role is Role.OPTIMIZED]
    assert len(optimized) == 2
    assert all(row.faster for row in optimized)
    assert (tmp_path / "out" / "bench.html").is_file()


def test_an_image_that_is_not_there_is_told(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        run_bench(BenchRequest((finished,), image=tmp_path / "none.png", plugin_files=(TINY_PLUGIN,)))


def test_all_values_that_do_not_fit_are_told_at_once(tmp_path: Path) -> None:
    told = CliRunner().invoke(
        app,
        [
            *("bench", str(tmp_path), "--batch", "1,two,0", "--threads", "x"),
            *("--sustained", "soon", "--protocol", "fast", "--runs", "1"),
        ],
    )
    assert told.exit_code == 2
    said = " ".join(told.stderr.split())
    for part in ("'two', '0'", "--threads x", "--sustained soon", "--protocol fast", "--runs 1", "5 problems"):
        assert part in said


def test_single_stream_is_refused_beside_several_images(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["bench", str(tmp_path), "--batch", "1,2", "--protocol", "single-stream"])
    assert told.exit_code == 2
    assert "one image a call" in " ".join(told.stderr.split())


def test_no_run_is_told(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["bench", str(tmp_path / "nowhere")])
    assert told.exit_code == 2
    assert "report.json" in told.stderr


@given(st.floats(0.1, 7200))
def test_pieces_are_minutes(seconds: float) -> None:
    found = list(pieces(seconds))
    assert found
    assert all(piece == 60 for piece in found[:-1])
    assert seconds - 15 < sum(found) <= seconds + 1e-6


def test_what_linux_tells_of_temperature_and_clock(tmp_path: Path) -> None:
    assert machine_state(tmp_path) == MachineState(None, None)
    for place, text in {
        "class/thermal/thermal_zone0/temp": "41000",
        "class/thermal/thermal_zone1/temp": "off",
        "class/hwmon/hwmon2/temp1_input": "57500",
        "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000",
        "devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "2200000",
    }.items():
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert machine_state(tmp_path) == MachineState(57.5, 2000.0)
