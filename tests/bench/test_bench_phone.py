"""`edgeopt bench --device` on a phone behind adb, through an app, and `edgeopt devices`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from conftest import TINY_PLUGIN
from typer.testing import CliRunner

from edgeopt.bench.request import BenchRequest
from edgeopt.bench.run import run_bench
from edgeopt.cli import app
from edgeopt.options import MeasureSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "plugins"))
from android import Android
from phone_runners import APP, Desk, adb_server, made_phone

pytestmark = [
    pytest.mark.skipif(shutil.which("adb") is None, reason="there is no adb: apt install adb"),
    pytest.mark.usefixtures("imports_done_once"),
]


def test_a_benchmark_on_a_phone(finished: Path, tmp_path: Path) -> None:
    """Through the app: the same answers as here, times, and what the phone is."""
    desk = Desk()
    with adb_server(tmp_path):
        for phone in made_phone(desk, tmp_path / "phone"):
            benchmark_on(phone, finished, tmp_path)
    desk.close()


def benchmark_on(phone: Android, finished: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "devices.toml"
    recipe.write_text(f'[[devices]]\nuse = "adb"\nname = "phone"\nserial = "{phone.serial}"\napp = "{APP}"\n')
    plugins = ("--plugin", str(TINY_PLUGIN))
    request = BenchRequest(
        (finished,),
        devices=("phone",),
        recipe=recipe,
        images=9,
        sustained_s=0.1,
        settings=MeasureSettings(warmup=1, runs=6, rounds=3),
        out=tmp_path / "out",
        plugin_files=(TINY_PLUGIN,),
    )
    bench = run_bench(request).bench
    assert bench.verdicts == ()
    for row in bench.rows:
        assert row.error is None
        assert row.answers is not None
        assert (row.answers.differing, row.answers.images) == (0, 9)
        assert row.latency_ms is not None
        assert row.latency_ms.runs == 6
        assert row.latency_ms.p90 is not None
        assert row.peak_memory_bytes is None, "the app does not tell it"
    assert [row.error for row in bench.sustained] == [None, None]
    assert bench.devices[0].facts is not None
    told = CliRunner().invoke(app, ["devices", "--recipe", str(recipe), "--device", "phone", *plugins])
    assert told.exit_code == 0
    assert told.stdout.startswith("phone: Example Phone 7 (Chips C-1)")
    assert "Python" not in told.stdout
    assert "Android 14" in told.stdout
    told = CliRunner().invoke(app, ["devices", "clean", "--recipe", str(recipe), "--device", "phone", *plugins])
    assert (told.exit_code, told.stdout) == (0, "phone: clean\n")
    assert not (phone.root / "data/local/tmp/edgeopt-device").exists()
