"""Every shipped recipe runs, as a smoke run, on local data in the format that it names."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from cifar10_files import write_cifar10

import edgeopt
from edgeopt.recipe import read_recipe

ROOT = Path(__file__).parent.parent.parent
RECIPES = ROOT / "recipes"


def smoke(name: str, out: Path, *overrides: str) -> dict[str, object]:
    result = edgeopt.run(RECIPES / f"{name}.toml", overrides=overrides, smoke=True, out=out)
    assert not result.failures
    report: dict[str, object] = json.loads((result.folder / "report.json").read_text())
    rows = report["rows"]
    assert isinstance(rows, list)
    for row in rows:
        assert row["error"] is None
        assert row["latency_ms"]["p50"] > 0
        if row["role"] == "optimized":
            assert row["precision"] == "int8"
            assert row["facts"]["layers_quantized"] > 0
    return report


def test_no_recipe_is_forgotten() -> None:
    assert {file.stem for file in RECIPES.glob("*.toml")} == {
        "mobilenetv3_qat_android",
        "resnet18_digits_ptq",
        "mobilenetv2_cifar10_ptq",
        "mobilenetv2_cifar10_qat",
        "stanford_dogs_mobilenetv3_qat_android",
        "mobilenetv2_four_runtimes",
        "resnet18_pruned_digits",
        "mobilenetv2_search_digits",
        "keras_mobilenet_digits",  # run in tests/plugins/test_tensorflow_run.py
    }


def test_digits(tmp_path: Path) -> None:
    """The one recipe that is run with every file; the others leave out what this one shows."""
    report = smoke("mobilenetv3_qat_android", tmp_path)
    assert len(report["rows"]) == 4  # type: ignore[arg-type]


def test_digits_without_training_in_the_loop(tmp_path: Path) -> None:
    report = smoke("resnet18_digits_ptq", tmp_path, "baseline=false")
    assert len(report["rows"]) == 2  # type: ignore[arg-type]


def test_pruned_digits(tmp_path: Path) -> None:
    """The teacher in the last pass is the float model, two passes before."""
    report = smoke(
        "resnet18_pruned_digits", tmp_path, "baseline=false", "dataset.image_size=32", "passes.2.teacher=float"
    )
    (pruned,) = (record for record in report["passes"] if record["name"] == "prune-structured")
    assert 0.4 < pruned["facts"]["macs_kept"] <= 0.5
    assert pruned["details"]["removed_channels"]
    taught = report["passes"][-1]["facts"]  # type: ignore[index]
    trained = report["passes"][-3]["facts"]  # type: ignore[index]
    assert taught["teacher_accuracy"] == trained["validation_accuracy"] and "control_accuracy" in taught


def test_searched_digits(tmp_path: Path) -> None:
    """On a network with fewer groups, so that a smoke run stays one."""
    report = smoke("mobilenetv2_search_digits", tmp_path, "baseline=false", "model.arch=squeezenet1_1")
    (searched,) = (record for record in report["passes"] if record["name"] == "prune-search")  # type: ignore[attr-defined]
    assert 0.3 < searched["facts"]["macs_kept"] <= 0.5
    assert (
        searched["facts"]["trials"] == searched["facts"]["groups"] == len(searched["details"]["sensitivity"]["groups"])
    )


def test_one_program_for_four_runtimes(tmp_path: Path) -> None:
    """In a smaller form: half the channels. All four files hold the same int8 program, and no latency is claimed for TensorRT."""
    result = edgeopt.run(
        RECIPES / "mobilenetv2_four_runtimes.toml",
        overrides=["dataset.image_size=32", "model.use='torchvision'", "model.arch='squeezenet1_1'", "baseline=false"],
        smoke=True,
        out=tmp_path,
    )
    assert not result.failures
    rows = {row.export: row for row in result.report.rows}
    assert set(rows) == {"executorch", "tflite", "onnx", "tensorrt"}
    for name, row in rows.items():
        assert row.precision == "int8"
        assert row.facts["layers_quantized"] == rows["executorch"].facts["layers"]
        assert row.agreement == 1.0
        assert (row.latency_ms is None) == (name == "tensorrt")
    assert rows["tensorrt"].stand_in == "onnxruntime"
    assert any("no tensorrt" in sentence for sentence in result.report.verdicts)
    assert (result.folder / rows["tensorrt"].file).exists()


@pytest.mark.parametrize("method", ["ptq", "qat"])
def test_cifar10(method: str, tmp_path: Path) -> None:
    write_cifar10(tmp_path / "cifar")
    smoke(
        f"mobilenetv2_cifar10_{method}",
        tmp_path / "runs",
        f"dataset.root={tmp_path / 'cifar'}",
        "dataset.verify=false",
        "dataset.image_size=32",
        "baseline=false",
        "exports=[{use='onnx'}]" if method == "ptq" else "exports=[{use='executorch'}]",
    )


def test_stanford_dogs(tmp_path: Path) -> None:
    """Parquet as the hub has it: encoded pictures of different sizes, and class labels with names, more than are kept."""
    import datasets
    from PIL import Image

    breeds = read_recipe(RECIPES / "stanford_dogs_mobilenetv3_qat_android.toml").dataset.options["classes"]
    names = sorted([*breeds, "Affenpinscher", "Whippet"])
    random = np.random.default_rng(0)
    pictures, labels = [], []
    for number in range(12 * len(names)):
        size = (40 + number % 30, 40 + number % 17)
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)).save(file, "JPEG")
        pictures.append({"bytes": file.getvalue(), "path": None})
        labels.append(number % len(names))
    features = datasets.Features({"pixel_values": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    table = datasets.Dataset.from_dict({"pixel_values": pictures, "label": labels}, features=features)
    table.to_parquet(tmp_path / "dogs.parquet")
    report = smoke(
        "stanford_dogs_mobilenetv3_qat_android",
        tmp_path / "runs",
        f"dataset.source={tmp_path / 'dogs.parquet'}",
        "dataset.image_size=64",
        "model.weights=none",
        "passes.0.accumulate=1",
        "baseline=false",
        "exports=[{use='onnx'}]",
    )
    dataset = report["dataset"]
    assert isinstance(dataset, dict)
    assert dataset["classes"] == breeds
