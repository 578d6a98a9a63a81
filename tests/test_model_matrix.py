"""The model matrix on a small subset: one model through one runtime, and a second call that finds it done.

What the other runtimes make of a program is in the tests of their exporters.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "model_matrix.py"
MODELS = ("torchvision:squeezenet1_1",)


@pytest.mark.timeout(900)
def test_a_subset_of_the_matrix_agrees_and_is_not_run_twice(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    command = [sys.executable, str(BENCHMARK), "--models", *MODELS, "--runtimes", "onnx"]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    results = json.loads((tmp_path / "docs" / "model_matrix.json").read_text())

    assert first.returncode == 0, first.stdout + first.stderr
    assert set(results) == set(MODELS)
    for model in MODELS:
        assert set(results[model]) == {"prepared", "onnx"}
        found = results[model]["onnx"]
        assert found["agreement"] >= 0.98, (model, found)
        assert found["size_ratio"] > 2, (model, found)
    assert "squeezenet1_1 (torchvision)" in (tmp_path / "docs" / "model_matrix.md").read_text()

    written = (tmp_path / "docs" / "model_matrix.json").stat().st_mtime_ns
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert second.returncode == 0
    assert (tmp_path / "docs" / "model_matrix.json").stat().st_mtime_ns == written
