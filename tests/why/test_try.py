"""`edgeopt why --try`: from a file that errs to a run with the line that mends it, through the door."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import TINY_PLUGIN
from typer.testing import CliRunner

import edgeopt
from edgeopt.cli import app

pytestmark = pytest.mark.usefixtures("imports_done_once")

PLUGINS = [TINY_PLUGIN, Path(__file__).with_name("spoiled_plugin.py")]
RECIPE = """\
schema = 1
name = "spoiled"
baseline = false

[dataset]
use = "stripes"
image_size = 16

[model]
use = "spoiled"

[[passes]]
use = "ptq"

[[exports]]
use = "onnx"

[[devices]]
use = "ssh"
host = "nobody@192.0.2.1"

[measure]
warmup = 1
runs = 5
rounds = 1
"""


def test_the_line_that_was_found_is_run_and_compared(tmp_path: Path) -> None:
    """The layer that int8 spoils is float in the run that is tried; nothing but that is made again, and no device is
    asked.
    """
    (tmp_path / "recipe.toml").write_text(RECIPE)
    run = edgeopt.run(tmp_path / "recipe.toml", devices=False, out=tmp_path / "runs", plugin_files=PLUGINS)
    file = run.folder / "onnx" / "optimized" / "model.onnx"
    plugins = [word for path in PLUGINS for word in ("--plugin", str(path))]
    told = CliRunner().invoke(app, ["why", str(file), "--images", "8", "--try", *plugins])
    assert told.exit_code == 0, told.output
    assert 'tried: layer_bits = { "2" = "float" }' in told.stdout
    mended = tmp_path / "runs" / "spoiled-mended"
    before, after = (
        json.loads((folder / "onnx" / "optimized" / "why" / "why.json").read_text()) for folder in (run.folder, mended)
    )
    assert worst(before) == "2"
    assert worst(after) != "2"
    report = json.loads((mended / "report.json").read_text())
    assert report["recipe"]["resolved"]["passes"][0]["layer_bits"] == {"2": "float"}
    assert report["rows"][0]["sha256"] != run.report.rows[0].sha256
    assert report["devices"] == []
    assert (file.parent / "why" / "tried.html").is_file()
    keys = [json.loads((folder / "run.json").read_text())["stages"] for folder in (run.folder, mended)]
    assert keys[0]["model"] == keys[1]["model"]


def worst(why: dict[str, list[dict[str, float]]]) -> str:
    layer = max(why["layers"], key=lambda each: each["share_at_output"])
    return str(layer["name"])
