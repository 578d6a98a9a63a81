"""A recipe with a Keras model through the public door, and which process imports what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import edgeopt

RECIPE = Path(__file__).parents[2] / "recipes/keras_mobilenet_digits.toml"

NOTE_MODULES = """
import atexit, json, os, pathlib, sys

def note():
    names = sorted({"torch", "tensorflow", "keras", "ai_edge_litert", "onnxruntime"} & set(sys.modules))
    job = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else None
    if job is not None and job.suffix == ".json":
        stages = json.loads(job.read_text())["stages"]
        pathlib.Path(os.environ["NOTES"], f"{os.getpid()}.json").write_text(json.dumps([stages, names]))

atexit.register(note)
"""


def test_a_keras_recipe_runs_to_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes, hook = tmp_path / "notes", tmp_path / "hook"
    notes.mkdir()
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(NOTE_MODULES)  # Python imports it in every process of the run
    monkeypatch.setenv("PYTHONPATH", str(hook), prepend=":")
    monkeypatch.setenv("NOTES", str(notes))
    overrides = ["baseline=false", "model.alpha=0.25", "passes.0.batch_size=16"]
    result = edgeopt.run(RECIPE, overrides=overrides, smoke=True, out=tmp_path / "runs")
    assert not result.failures

    report = json.loads((result.folder / "report.json").read_text())
    tflite, onnx = report["rows"]
    assert (tflite["runtime"], tflite["role"], tflite["precision"]) == ("litert", "optimized", "int8")
    assert tflite["facts"]["layers_quantized"] == tflite["facts"]["layers"] > 20
    assert (onnx["runtime"], onnx["precision"], onnx["agreement"]) == ("onnxruntime", "float32", 1.0)
    for row in report["rows"]:
        assert row["error"] is None
        assert row["latency_ms"]["p50"] > 0
        assert (result.folder / row["file"]).exists()

    seen = [json.loads(file.read_text()) for file in notes.iterdir()]
    imported = {stage: set(names) for stages, names in seen for stage in stages}
    assert imported
    assert not any("torch" in names for names in imported.values())
    assert {stage for stage, names in imported.items() if "tensorflow" in names} >= {"model", "program-baseline"}
    assert imported["verify-keras-tflite-optimized"] == {"ai_edge_litert"}
    assert imported["verify-keras-onnx-baseline"] == {"onnxruntime"}
