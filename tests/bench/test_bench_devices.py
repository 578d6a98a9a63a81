"""`edgeopt bench --device` on a run of the tiny plugins, and `edgeopt devices`."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from conftest import TINY_PLUGIN, TINY_RECIPE
from typer.testing import CliRunner

from edgeopt.bench.request import BenchRequest
from edgeopt.bench.run import BenchResult, run_bench
from edgeopt.cli import app
from edgeopt.errors import UserError
from edgeopt.options import MeasureSettings

pytestmark = pytest.mark.usefixtures("imports_done_once")

PLUGIN = Path(__file__).with_name("devices_plugin.py")
PLUGINS = (TINY_PLUGIN, PLUGIN)
SETTINGS = MeasureSettings(warmup=1, runs=6, rounds=3)
DEVICES = """
[[devices]]
use = "mistaken"
name = "board"

[[devices]]
use = "away"
"""


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with devices alone."""
    file = tmp_path_factory.mktemp("devices") / "devices.toml"
    file.write_text(DEVICES)
    return file


@pytest.fixture(scope="module")
def result(finished: Path, devices: Path, tmp_path_factory: pytest.TempPathFactory) -> BenchResult:
    request = BenchRequest(
        (finished,),
        devices=("local", "board", "away"),
        recipe=devices,
        images=9,
        sustained_s=0.2,
        energy=True,
        operators=True,
        settings=SETTINGS,
        out=tmp_path_factory.mktemp("out"),
        plugin_files=PLUGINS,
    )
    return run_bench(request)


def test_each_device_has_a_row_for_each_file(result: BenchResult) -> None:
    rows = result.bench.rows
    assert len(rows) == len({(row.device, row.file) for row in rows}) == 3 * 2
    for row in rows:
        assert (row.latency_ms is None) == (row.device == "away")
        if row.latency_ms:
            assert len(row.latency_ms.turns) == 3
            assert row.latency_ms.runs == 6


def test_what_files_answer_is_compared_with_this_machine(result: BenchResult) -> None:
    """Nothing tells this machine from itself; the one with a fault answers otherwise, and says so first."""
    for row in result.bench.rows:
        told = row.answers
        if row.device == "away":
            assert told is None
            assert "switch it on" in (row.error or "")
            continue
        assert told is not None
        assert told.images == 9
        assert row.test_accuracy == told.test_accuracy
        if row.device == "local":
            assert (told.agreement, told.differing, told.max_logit_difference) == (1.0, 0, 0.0)
        else:
            assert told.differing
            assert told.agreement < 1
    away, first, second = result.bench.verdicts
    assert away.startswith("away was not measured to the end: away: it is away")
    assert "board answers otherwise than this machine" in first
    assert "of 9 images" in first
    assert first != second
    assert [problem.hint for failure in result.failures for problem in failure.problems] == ["switch it on"]


def test_calls_without_a_pause_are_those_of_the_device(result: BenchResult) -> None:
    files = {row.file for row in result.bench.rows}
    rows = {(row.device, row.file): row for row in result.bench.sustained}
    assert set(rows) == {(device, file) for device in ("local", "board") for file in files}
    for row in rows.values():
        (minute,) = row.minutes
        assert row.error is None
        assert minute.minute == pytest.approx(0.2 / 60)
        assert minute.calls > 5
        assert row.slowdown == 1


def test_each_device_tells_its_energy_or_why_not(result: BenchResult) -> None:
    """By its own meter, which is this machine's here, and which few virtual machines have."""
    for row in result.bench.rows:
        told = [each for each in result.bench.left_out if each.startswith(f"{row.device}: the energy of {row.file} is")]
        assert bool(told) == (row.energy is None and row.device != "away")


def test_an_image_goes_the_whole_way_on_the_device(result: BenchResult) -> None:
    """Where a kind of device does not do that, its rows say so; what operators take is told of this machine alone."""
    rows = {(row.device, row.file): row for row in result.bench.whole}
    files = {row.file for row in result.bench.rows}
    assert set(rows) == {(device, file) for device in ("local", "board") for file in files}
    for (device, _), row in rows.items():
        if device == "board":
            assert row.pipeline_ms is None
            assert row.error == "this kind of device does not take images the whole way"
            continue
        way = row.pipeline_ms
        assert way is not None
        assert min(way.decode, way.preprocess, way.file, way.answer) > 0
        assert 0 < way.file_share < 0.9
    assert {row.file for row in result.bench.operators} == files
    page = (result.folder / "bench.html").read_text()
    for sentence in ("this kind of device does not take images the whole way", "and not on devices"):
        assert sentence in page


def test_ratios_are_of_one_device(result: BenchResult) -> None:
    """Where a device is half as fast, an optimized file is not half as fast as the float file of another device."""
    for row in result.bench.rows:
        assert (row.faster is None) == (row.role == "baseline" or row.device == "away")


def test_json_csv_and_page_say_it(result: BenchResult) -> None:
    stored = json.loads((result.folder / "bench.json").read_text())
    assert [each["name"] for each in stored["devices"]] == ["local", "board", "away"]
    assert stored["devices"][1]["facts"]["processor"] == "a processor with a fault"
    assert stored["verdicts"] == list(result.bench.verdicts)
    lines = list(csv.DictReader(io.StringIO((result.folder / "bench.csv").read_text())))
    assert {line["device"] for line in lines} == {"local", "board", "away"}
    assert {line["images"] for line in lines if line["device"] == "board"} == {"9"}
    page = (result.folder / "bench.html").read_text()
    assert page.index("Mind this") < page.index("board answers otherwise") < page.index("<table")
    assert "a processor with a fault" in page
    assert "optimized on board" in page.partition("Without a pause")[2]


def test_a_device_without_answers_says_so_and_means_are_no_quantiles(finished: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "devices.toml"
    recipe.write_text('[[devices]]\nuse = "silent"\n')
    request = BenchRequest(
        (finished,),
        devices=("silent",),
        recipe=recipe,
        images=9,
        sustained_s=0.1,
        settings=SETTINGS,
        out=tmp_path / "out",
        plugin_files=PLUGINS,
    )
    result = run_bench(request)
    for row in result.bench.rows:
        latency = row.latency_ms
        assert latency is not None
        assert (latency.p90, latency.p99, latency.std) == (None, None, None)
        assert latency.runs == 6
        assert min(latency.turns) <= latency.p50 <= max(latency.turns)
        assert row.answers is None
        assert row.peak_memory_bytes is None
        assert row.note == ("its runner gives none" if row.role == "baseline" else "it gave no answers")
    assert all(row.minutes[0].calls > 5 for row in result.bench.sustained)
    assert {verdict.rpartition(": ")[2] for verdict in result.bench.verdicts} == {
        "its runner gives none",
        "it gave no answers",
    }
    page = (result.folder / "bench.html").read_text()
    assert page.index("Mind this") < page.index("it gave no answers") < page.index("<table")
    (line, _) = csv.DictReader(io.StringIO((result.folder / "bench.csv").read_text()))
    assert (line["p90_ms"], line["note"] != "") == ("", True)
    stored = json.loads((result.folder / "bench.json").read_text())
    assert stored["rows"][0]["latency_ms"]["p90"] is None


def bench(*arguments: str, run: Path) -> tuple[int, str, str]:
    plugins = [word for file in PLUGINS for word in ("--plugin", str(file))]
    told = CliRunner().invoke(app, ["bench", str(run), "--runs", "5", "--images", "3", *arguments, *plugins])
    return told.exit_code, told.stdout, " ".join(told.stderr.split())


def test_a_device_that_is_away_ends_the_command_with_what_to_do(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[[devices]]\nuse = "away"\nname = "pi"\n')
    code, _, said = bench(
        "--device", "pi", "--recipe", str(tmp_path / "mine.toml"), "--out", str(tmp_path), run=finished
    )
    assert code == 2
    assert said.endswith("error: pi: it is away: nobody answers switch it on")
    assert (tmp_path / "bench.html").is_file()


def test_devices_are_those_of_the_recipe_of_the_run(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("bench")))
    report = json.loads((run / "report.json").read_text())
    report["recipe"]["resolved"]["devices"] = [{"use": "mistaken", "name": "board"}]
    (run / "report.json").write_text(json.dumps(report))
    code, _, said = bench("--device", "bord", run=run)
    assert code == 2
    assert "--device bord: there is no such device" in said
    assert "'board'" in said


def test_what_devices_do_not_go_with_is_told_at_once(finished: Path) -> None:
    code, _, said = bench("--device", "board", "--threads", "x", "--batch", "0", run=finished)
    assert code == 2
    assert "2 problems" in said
    code, _, said = bench("--recipe", "none.toml", run=finished)
    assert code == 2
    assert "add --device NAME" in said


def test_a_run_whose_store_is_gone_says_how_to_get_it_back(finished: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(finished, tmp_path / "alone", ignore=shutil.ignore_patterns("bench"))
    request = BenchRequest((Path(alone),), devices=("local",), plugin_files=PLUGINS)
    with pytest.raises(UserError, match=r"no longer in the store") as told:
        run_bench(request)
    assert told.value.problems[0].hint


def test_mistakes_in_devices_have_their_lines(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        TINY_RECIPE
        + '\n[[devices]]\nuse = "ssh"\n\n[[devices]]\nuse = "sssh"\n\n[[devices]]\nuse = "ssh"\nhost = "x"\n'
    )
    start = len(TINY_RECIPE.splitlines()) + 2
    for arguments in (["check", str(recipe)], ["devices", "--recipe", str(recipe)]):
        told = CliRunner().invoke(app, [*arguments, "--plugin", str(TINY_PLUGIN)])
        assert told.exit_code == 2
        said = " ".join(told.stderr.split())
        assert f"recipe.toml:{start}: 'devices.0.host' is missing" in said
        assert f"recipe.toml:{start + 4}: there is no device 'sssh'" in said
        assert "two devices are called 'ssh'" in said


def test_devices_are_listed_and_cleaned(devices: Path) -> None:
    arguments = ["--recipe", str(devices), "--plugin", str(PLUGIN)]
    told = CliRunner().invoke(app, ["devices", *arguments])
    assert told.exit_code == 2
    local, board = told.stdout.splitlines()
    assert local.startswith("local: ")
    assert "Python 3." in local
    assert board.startswith("board: a processor with a fault")
    assert "away: it is away" in told.stderr
    cleaned = CliRunner().invoke(app, ["devices", "clean", *arguments, "--device", "board"])
    assert (cleaned.exit_code, cleaned.stdout) == (0, "board: clean\n")
