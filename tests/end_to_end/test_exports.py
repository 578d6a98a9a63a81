"""What the core does for exporters: float files to compare with, refusals, files that cannot run here, other
frameworks.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_PLUGIN, TINY_RECIPE

import edgeopt
from edgeopt.conversion.plan import ConversionRequest, convert
from edgeopt.errors import ExportError, LockError, RecipeError
from edgeopt.pipeline.request import RunResult
from edgeopt.types import Role

pytestmark = pytest.mark.usefixtures("imports_done_once")

PLUGINS = [TINY_PLUGIN, TINY_PLUGIN.with_name("converting_plugin.py")]
CONVERTING = TINY_RECIPE.replace('[[passes]]\nuse = "round-weights"\nsteps = 64\n', "").replace(
    'use = "npz"', 'use = "halves"\nprecision = "float16"'
)
ABACUS = CONVERTING.replace('"linear"', '"abacus"').replace('[[passes]]\nuse = "fit-stripes"\n', "")
ABACUS = ABACUS.replace('use = "halves"\nprecision = "float16"', 'use = "abacus-npz"')


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find the module in which the abacus is saved."""
    monkeypatch.setenv("PYTHONPATH", str(TINY_PLUGIN.parent), prepend=os.pathsep)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the recipes and their runs: the network of most of them is trained once."""
    return tmp_path_factory.mktemp("exports")


def run(text: str, folder: Path, *overrides: str) -> RunResult:
    (folder / "recipe.toml").write_text(text)
    return edgeopt.run(folder / "recipe.toml", overrides=overrides, out=folder / "runs", plugin_files=PLUGINS)


def problems(text: str, folder: Path) -> list[str]:
    (folder / "recipe.toml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        edgeopt.check(folder / "recipe.toml", plugin_files=PLUGINS)
    return [str(problem).replace(str(folder), "") for problem in caught.value.problems]


def test_an_exporter_that_converts_has_a_float_file_beside_it(folder: Path) -> None:
    """Without any pass that optimizes: both files come from one program."""
    result = run(CONVERTING, folder)
    baseline, optimized = result.report.rows
    assert (baseline.role, baseline.precision) == (Role.BASELINE, "float32")
    assert (optimized.role, optimized.precision) == (Role.OPTIMIZED, "float16")
    assert optimized.size_bytes < 0.8 * baseline.size_bytes
    assert len(result.report.programs) == 1
    card = json.loads((result.folder / "halves/optimized/card.json").read_text())
    assert card["precision"] == "float16"
    with np.load(result.folder / "halves/optimized/model.npz") as arrays:
        assert arrays["seen"] > 0  # calibration images reach the exporter
    assert any("smaller than float32" in sentence for sentence in result.report.verdicts)


def test_without_a_baseline_there_is_one_file(folder: Path) -> None:
    result = run(CONVERTING, folder, "baseline=false")
    assert [row.role for row in result.report.rows] == [Role.OPTIMIZED]


def test_files_that_belong_together_are_placed_together(folder: Path) -> None:
    result = run(CONVERTING, folder, "exports.0.apart=true", "exports.0.source=true", "baseline=false")
    (row,) = result.report.rows
    made = result.folder / "halves/optimized"
    assert {file.name for file in made.iterdir()} == {"model.npz", "model.bias.npy", "model.h", "card.json"}
    assert row.size_bytes == sum((made / name).stat().st_size for name in ("model.npz", "model.bias.npy"))
    assert row.agreement == 1.0  # it was opened with its companion
    assert len({(made / name).stat().st_mode for name in ("model.npz", "model.bias.npy")}) == 1
    lock = result.folder / "lock.toml"
    parts = tomllib.loads(lock.read_text())["parts"]
    digest = hashlib.sha256((made / "model.bias.npy").read_bytes()).hexdigest()
    assert parts["halves/optimized/model.bias.npy"] == digest
    artifact, part = 'optimized/model.npz" = "', 'optimized/model.bias.npy" = "'
    lock.write_text(lock.read_text().replace(artifact, f"{artifact}0", 1).replace(part, f"{part}0", 1))
    with pytest.raises(LockError) as caught:
        edgeopt.run(
            folder / "recipe.toml",
            overrides=("exports.0.apart=true", "exports.0.source=true", "baseline=false"),
            out=folder / "runs",
            plugin_files=PLUGINS,
            locked=True,
        )
    (problem,) = caught.value.problems
    assert "model.bias.npy" in problem.message and "model.npz" not in problem.message


def test_a_second_file_that_an_exporter_does_not_name_fails_its_row(folder: Path) -> None:
    result = run(CONVERTING, folder, "exports.0.apart=true", "exports.0.named=false", "baseline=false")
    (row,) = result.report.rows
    assert "'halves' wrote files beside its own that it does not name: model.bias.npy" in (row.error or "")
    assert not list(result.folder.glob("halves/*/*"))


def test_a_file_that_cannot_run_here_is_not_given_figures(folder: Path) -> None:
    result = run(CONVERTING, folder, "exports.0.place='device'", "baseline=false", "gates.agreement=0.5")
    (row,) = result.report.rows
    assert row.not_run == "the abacus is at home"
    assert row.size_bytes > 0
    assert (row.test_accuracy, row.agreement, row.latency_ms) == (None, None, None)
    assert any("made and not opened: the abacus is at home" in sentence for sentence in result.report.verdicts)
    assert not result.gates_passed
    assert "the abacus is at home" in result.report.gates[0].message
    assert (result.folder / row.file).exists()
    assert "the abacus is at home" in (result.folder / "report.html").read_text()


def test_a_stand_in_answers_and_is_not_timed(folder: Path) -> None:
    result = run(CONVERTING, folder, "exports.0.place='stand-in'", "baseline=false")
    (row,) = result.report.rows
    assert (row.stand_in, row.agreement, row.latency_ms) == ("fingers", 1.0, None)
    assert any("verified in fingers instead" in sentence for sentence in result.report.verdicts)


def test_an_exporter_refuses_a_quantizer_with_a_line(tmp_path: Path) -> None:
    text = CONVERTING.replace('use = "fit-stripes"', 'use = "ptq"\nquantizer = "beads"')
    (problem,) = problems(text, tmp_path)
    line = text.splitlines().index('precision = "float16"') + 1
    assert problem.startswith(f"/recipe.toml:{line}: halves cannot take beads")


def test_frameworks_do_not_mix(tmp_path: Path) -> None:
    found = problems(CONVERTING.replace('"linear"', '"abacus"'), tmp_path)
    assert any(
        "pass 'fit-stripes' takes models of torch, and model 'abacus' gives one of abacus" in each for each in found
    )
    assert any("exporter 'halves' takes models of torch" in each and "'abacus-npz'" in each for each in found)


@pytest.mark.usefixtures("importable")
def test_a_model_of_another_framework_runs_to_a_report_without_torch(folder: Path) -> None:
    """Every callable of the abacus asserts that torch is not in its process."""
    result = run(ABACUS, folder)
    assert not result.failures
    (row,) = result.report.rows
    assert (row.agreement, row.precision) == (1.0, "float32")
    assert result.report.stages


@pytest.mark.usefixtures("importable")
def test_conversion_runs_both_sides_and_refuses_another_function(tmp_path: Path) -> None:
    source = tmp_path / "abacus"
    source.mkdir()
    np.save(source / "weight.npy", np.random.default_rng(0).standard_normal((4, 3 * 8 * 8)).astype(np.float32))
    request = ConversionRequest(
        str(source / "weight.npy"), "npz", overrides=("export.source=true",), plugin_files=tuple(map(str, PLUGINS))
    )
    result = convert(request, tmp_path / "out.npz")
    assert result.path.exists()
    assert result.companions == (tmp_path / "out.h",) and result.companions[0].read_text() == "// halves\n"
    assert result.size_bytes == result.path.stat().st_size, "what the file is opened without is no part of its size"
    assert result.agreement == 1.0
    assert result.relative_difference < 1e-6  # the file answers one image a call, and sums are added in another order
    lying = ConversionRequest(
        str(source / "weight.npy"), "npz", overrides=("export.lie=true",), plugin_files=tuple(map(str, PLUGINS))
    )
    with pytest.raises(ExportError, match="nothing was written") as caught:
        convert(lying, tmp_path / "lie.npz")
    assert "would differ" in str(caught.value)
    assert not (tmp_path / "lie.npz").exists()
