"""The example of a task of one's own: its contracts, and its recipe from images to an int8 file judged in degrees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "edgeopt-angle-plugin"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the package is found as an installed one is, by its entry point."""
    folder = tmp_path_factory.mktemp("site")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    told = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = "\n".join(f"{name} = {value}" for name, value in project["entry-points"]["edgeopt"].items())
    (told / "entry_points.txt").write_text(f"[edgeopt]\n{points}\n")
    paths = [str(EXAMPLE / "src"), str(folder), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTEST_ADDOPTS": "", "COLUMNS": "200"}


def run(settings: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.timeout(600)
def test_the_package_keeps_its_contracts(settings: dict[str, str]) -> None:
    done = run(settings, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", EXAMPLE, EXAMPLE / "tests")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.timeout(600)
def test_its_recipe_is_trained_quantized_exported_and_judged_by_its_own_scores(
    settings: dict[str, str], tmp_path: Path
) -> None:
    quick = [
        "dataset.images=300",
        "model.width=8",
        "passes.0.epochs=5",
        "measure.runs=5",
        "measure.rounds=1",
        "baseline=false",
    ]
    changes = [part for each in quick for part in ("--set", each)]
    done = run(settings, "-m", "edgeopt", "run", EXAMPLE / "angle.toml", "--out", tmp_path, *changes)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "mean error" in done.stdout and "mean_error_drop" in done.stdout
    report = json.loads((tmp_path / "angle-int8" / "report.json").read_text())
    (after,), program = report["rows"], report["programs"][0]
    assert [score["kind"]["name"] for score in after["scores"]] == ["mean_error", "within"]
    assert after["precision"] == "int8" and after["test_accuracy"] is None and not after["per_class"]
    assert after["scores"][0]["value"] < program["scores"][0]["value"] + 2.0 < 10.0
    assert after["scores"][0]["interval"][0] < after["scores"][0]["value"] < after["scores"][0]["interval"][1]
    assert after["against_float_program"]["graded"] and after["agreement"] >= 0.9
    assert after["guess"] is None and report["samples"] == []
    assert {gate["name"]: gate["passed"] for gate in report["gates"]} == dict.fromkeys(
        ("mean_error", "within", "mean_error_drop", "agreement"), True
    )
    (section,) = after["sections"]
    assert sum(row[1] for row in section["tables"][0]["rows"]) == report["dataset"]["splits"]["test"]
    page = (tmp_path / "angle-int8" / "report.html").read_text()
    assert "Error by angle" in page and page.count("<polygon") == 2 * len(section["images"])
    assert report["recipe"]["resolved"]["task"] == {"use": "angle", "close_degrees": 5.0}
    file = tmp_path / "angle-int8" / after["file"]
    lines = run(settings, "-m", "edgeopt", "card", file, "--lang", "python")
    assert lines.returncode == 0, lines.stderr
    (file.parent / "feed.py").write_text(lines.stdout)
    image = Image.new("L", (64, 64))
    ImageDraw.Draw(image).line((0, 32, 63, 32), fill=255, width=6)  # level
    image.save(tmp_path / "bar.png")
    said = subprocess.run(
        [sys.executable, "feed.py", tmp_path / "bar.png"], cwd=file.parent, capture_output=True, text=True, check=True
    ).stdout
    degrees = int(said.rstrip("°\n"))
    assert min(degrees, 180 - degrees) < 30, "the lines of the example's own template"
