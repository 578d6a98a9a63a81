"""Every shipped recipe runs, as a smoke run, on local data in the format that it names.

Recipes that differ from another in their data, architecture or one option alone are checked, and the other is run.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cifar10_files import write_cifar10

import edgeopt
from edgeopt.recipe.read import read_recipe

pytestmark = pytest.mark.usefixtures("imports_done_once")

ROOT = Path(__file__).parent.parent.parent
RECIPES = ROOT / "recipes"


def smoke(name: str, out: Path, *overrides: str, int8: bool = True) -> dict[str, Any]:
    result = edgeopt.run(RECIPES / f"{name}.toml", overrides=overrides, smoke=True, out=out)
    assert not result.failures
    report: dict[str, Any] = json.loads((result.folder / "report.json").read_text())
    rows = report["rows"]
    assert rows
    for row in rows:
        assert row["error"] is None
        assert row["latency_ms"]["p50"] > 0
        if int8 and row["role"] == "optimized":
            assert row["precision"] == "int8"
            assert row["facts"]["layers_quantized"] > 0
    return report


#: Where the recipes of each folder find their data, in the smoke form of this file.
LOCAL_DATA = {
    "cifar10": ("dataset.root={}/cifar", "dataset.verify=false"),
    "imagenette": ("dataset.path={}/imagenette",),
    "cats_vs_dogs": ("dataset.path={}/pets",),
    "free_spoken_digits": ("dataset.path={}/recordings",),
    "shapes": (),
    "spoken_digits": (),
    "digits": (),
}


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small data sets in the formats of those that recipes download."""
    from PIL import Image
    from scipy.io import wavfile

    root = tmp_path_factory.mktemp("data")
    write_cifar10(root / "cifar")
    random = np.random.default_rng(0)
    folders = [f"imagenette/{split}/n0{number}" for split in ("train", "val") for number in range(10)]
    for folder in (*folders, "pets/Cat", "pets/Dog"):
        (root / folder).mkdir(parents=True)
        for index in range(8):
            pixels = random.integers(0, 255, (40 + index, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{index}.jpg")
    (root / "pets/Cat/666.jpg").write_bytes(b"")  # as the published archive has it
    (root / "allocation.toml").write_text('of = "sparsity"\n[layers]\n"features.1.conv.1" = 0.5\n')
    (root / "recordings").mkdir()
    for digit in range(10):
        for speaker in ("george", "jackson", "lucas", "nicolas", "theo", "yweweler"):
            samples = random.normal(0, 3000, 4000 + 100 * digit).astype(np.int16)
            wavfile.write(root / "recordings" / f"{digit}_{speaker}_0.wav", 8000, samples)
    return root


def local(name: str, data: Path) -> list[str]:
    """Overrides with which a recipe finds its data."""
    return [each.format(data) for each in LOCAL_DATA[name.partition("/")[0]]]


@pytest.mark.parametrize("name", [f"{file.parent.name}/{file.stem}" for file in sorted(RECIPES.glob("*/*.toml"))])
def test_recipes_fit_their_data_and_have_names_of_their_own(name: str, data: Path) -> None:
    """All that can be wrong before an image is read; a run that another one starts from is left out."""
    overrides = local(name, data)
    if name.endswith("/mobilenetv2_distilled"):
        overrides.append("passes.1.teacher={use='torchvision', arch='resnet50', weights='DEFAULT'}")
    if name.endswith("/mobilenetv2_sparse_by_layer"):
        overrides.append(f"passes.1.allocation={data}/allocation.toml")
    if name == "digits/mobilenetv2_transfer":
        overrides.append("model={use='torchvision', arch='mobilenet_v2'}")
    plan = edgeopt.check(RECIPES / f"{name}.toml", overrides=overrides)
    assert name.partition("/")[0].replace("_", "-") in plan.recipe.name


def test_no_recipe_is_forgotten() -> None:
    assert {file.parent.name for file in RECIPES.glob("*/*.toml")} == set(LOCAL_DATA)
    names = [read_recipe(file).name for file in RECIPES.rglob("*.toml")]
    assert len(set(names)) == len(names)  # a run of one would overwrite that of the other
    assert {file.stem for file in RECIPES.glob("*.toml")} == {
        "mobilenetv2_camera_int8",
        "mobilenetv3_qat_android",
        "resnet18_digits_ptq",
        "stanford_dogs_mobilenetv3_qat_android",
        "lraspp_qat_three_runtimes",  # run by whoever has an hour; its parts are tested with segmentation's
        "unet_grey_qat_three_runtimes",  # as that one
        "mobilenet_tune_digits",  # a study; tests of tune run smaller ones
        "oxford_pets_mobilenetv3_calibrated",  # checked in tests/plugins/test_torchvision_named.py
        "mobilenetv2_four_runtimes",
        "mobilenetv2_halved_four_runtimes",
        "resnet18_pruned_digits",
        "mobilenetv2_search_digits",
        "mobilenetv2_on_devices",
        "mobilenetv3_sizes",
        "resnet18_wide_grey",  # files of such images are tested in tests/plugins/test_shapes_of_models.py
        "person_detect_mcu_digits",  # files of such networks are tested in tests/plugins/test_tflm_contracts.py
        "ds_cnn_16x8_digits",  # its files are tested in tests/plugins/test_int16.py
        "mobilenetv3_ncnn_digits",  # as the next one, in tests/plugins/test_ncnn_export.py
        "mobilenetv3_coreml",  # its files are tested in tests/plugins/test_coreml_export.py
        "mobilenetv3_openvino",  # its files are tested in tests/plugins/test_openvino_files.py
        "mobilenetv3_web",  # as the one for Android, with files that tests/web opens
        "keras_mobilenet_digits",  # run in tests/plugins/test_tensorflow_run.py
        *CHECKED,
    }


CHECKED = (
    "mobilenet_tune_digits",
    "lraspp_qat_three_runtimes",
    "unet_grey_qat_three_runtimes",
)  # what runs them has tests of its own


@pytest.mark.parametrize("name", CHECKED)
def test_recipes_that_take_long_are_right(name: str) -> None:
    assert edgeopt.check(RECIPES / f"{name}.toml").exports


def test_digits(tmp_path: Path) -> None:
    """The one recipe that is run with every file; the others leave out what this one shows."""
    report = smoke("mobilenetv3_qat_android", tmp_path)
    assert len(report["rows"]) == 4


def test_other_recipes_for_digits_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each differs from one that is run, here or below, in its network, its data or some options alone."""
    monkeypatch.setenv("EDGEOPT_BROWSER", sys.executable)  # files for web pages want one, which nothing opens here
    for name in (
        "resnet18_digits_ptq",
        "resnet18_pruned_digits",
        "mobilenetv2_four_runtimes",
        "mobilenetv3_web",
        "mobilenetv3_coreml",
        "mobilenetv3_openvino",
        "ds_cnn_16x8_digits",
        "mobilenetv2_on_devices",
        "mobilenetv3_sizes",
    ):
        edgeopt.check(RECIPES / f"{name}.toml")


def test_searched_digits(tmp_path: Path) -> None:
    """On a network with fewer groups, so that a smoke run stays one."""
    report = smoke("mobilenetv2_search_digits", tmp_path, "baseline=false", "model.arch=squeezenet1_1")
    (searched,) = (record for record in report["passes"] if record["name"] == "prune-search")  # type: ignore[attr-defined]
    assert 0.3 < searched["facts"]["macs_kept"] <= 0.5
    assert (
        searched["facts"]["trials"] == searched["facts"]["groups"] == len(searched["details"]["sensitivity"]["groups"])
    )


def test_one_program_for_four_runtimes(tmp_path: Path) -> None:
    """Pruned, distilled and quantized. All four files hold the same int8 program, and no latency is claimed for
    TensorRT. The teacher of the quantization is the float model, three passes before.
    """
    result = edgeopt.run(
        RECIPES / "mobilenetv2_halved_four_runtimes.toml",
        overrides=[
            "dataset.image_size=32",
            "model.use='torchvision'",
            "model.arch='squeezenet1_1'",
            "passes.2.control=false",
            "passes.3.teacher=float",
            "baseline=false",
        ],
        smoke=True,
        out=tmp_path,
    )
    assert not result.failures
    rows = {row.export: row for row in result.report.rows}
    assert set(rows) == {"executorch", "tflite", "onnx", "tensorrt"}
    for name, row in rows.items():
        assert row.precision == "int8"
        assert row.facts["layers_quantized"] == rows["executorch"].facts["layers"]
        assert row.agreement >= 0.95, "two batches of training leave some answers on the edge"
        assert (row.latency_ms is None) == (name == "tensorrt")
    assert rows["tensorrt"].stand_in == "onnxruntime"
    assert [record.name for record in result.report.passes] == ["model", "train", "prune-structured", "distill", "qat"]
    trained, pruned, _distilled, taught = (record for record in result.report.passes if record.name != "model")
    assert 0.4 < pruned.facts["macs_kept"] <= 0.5
    assert pruned.details["removed_channels"]
    assert taught.facts["teacher_accuracy"] == trained.facts["validation_accuracy"]
    assert "control_accuracy" in taught.facts
    assert any("no tensorrt" in sentence for sentence in result.report.verdicts)
    assert (result.folder / rows["tensorrt"].file).exists()


TINY = ("dataset.image_size=32", "baseline=false")


@pytest.mark.timeout(1800)  # three runs, one after another
def test_cifar10_and_what_starts_from_its_run(data: Path, tmp_path: Path) -> None:
    """A run on CIFAR-10, a student that has its float model as teacher, and a transfer of its features to digits."""
    out = tmp_path / "runs"
    small = (*TINY, "model.arch=squeezenet1_1")  # half the layers
    smoke("cifar10/mobilenetv2_ptq", out, *local("cifar10", data), *small, "exports=[{use='onnx'}]")
    run = f"{out}/mobilenetv2-cifar10-ptq-smoke"
    report = smoke(
        "cifar10/mobilenetv2_distilled", out, *local("cifar10", data), *small, f"passes.1.teacher.run={run}", int8=False
    )
    (taught,) = (record for record in report["passes"] if record["name"] == "distill")
    assert taught["facts"]["teacher"] == "earlier-run" and "control_accuracy" in taught["facts"]
    report = smoke("digits/mobilenetv2_transfer", out, *TINY, f"model.run={run}", int8=False)
    (trained,) = (record for record in report["passes"] if record["name"] == "train")
    assert trained["facts"]["frozen_layers"] > 0


def test_four_bits_of_shapes(tmp_path: Path) -> None:
    report = smoke("shapes/resnet18_qat_4bit", tmp_path, *TINY, "dataset.images=480", "baseline=false", int8=False)
    (row,) = report["rows"]
    assert row["precision"] == "w4a4"
    assert row["size_bytes"] < 7e6, "eleven million weights, two to a byte"


def test_sparse_shapes(tmp_path: Path) -> None:
    """As the recipe has it, and once more as the recipes with `precision = "dynamic-int8"` do."""
    exports = "exports=[{use='onnx'}, {use='onnx', name='dynamic', precision='dynamic-int8'}]"
    report = smoke("shapes/mobilenetv2_sparse_2_4", tmp_path, *TINY, "dataset.images=480", exports, int8=False)
    (pruned,) = (record for record in report["passes"] if record["name"] == "prune-unstructured")
    assert 0.4 < pruned["facts"]["sparsity"] <= 0.5
    assert [row["precision"] for row in report["rows"]] == ["float32", "dynamic-int8"]


def test_camera_pixels_of_shapes(tmp_path: Path) -> None:
    """An int8 file that normalizes inside, of a network whose sums lie between two steps now and then."""
    report = smoke(
        "mobilenetv2_camera_int8",
        tmp_path,
        *TINY,
        "dataset.images=480",
        "exports=[{use='onnx', input={kind='uint8-nhwc'}}]",
    )
    (row,) = report["rows"]
    assert row["agreement"] >= 0.95


def test_recordings_of_six_speakers(data: Path, tmp_path: Path) -> None:
    """With quantization in the training, as in the other recipes that have it."""
    report = smoke(
        "free_spoken_digits/mobilenetv2_int8",
        tmp_path,
        *local("free_spoken_digits", data),
        *TINY,
        "model.arch=squeezenet1_1",  # the recordings are what this is about
        "exports=[{use='onnx'}]",
    )
    assert report["dataset"]["groups"] == {"train": 4, "calibration": 4, "validation": 1, "test": 1}


def test_stanford_dogs(tmp_path: Path) -> None:
    """Parquet as the hub has it: encoded images of different sizes, and class labels with names, more than are kept."""
    import datasets
    from PIL import Image

    breeds = read_recipe(RECIPES / "stanford_dogs_mobilenetv3_qat_android.toml").dataset.options["classes"]
    names = sorted([*breeds, "Affenpinscher", "Whippet"])
    random = np.random.default_rng(0)
    images, labels = [], []
    for number in range(12 * len(names)):
        size = (40 + number % 30, 40 + number % 17)
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)).save(file, "JPEG")
        images.append({"bytes": file.getvalue(), "path": None})
        labels.append(number % len(names))
    features = datasets.Features({"pixel_values": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    table = datasets.Dataset.from_dict({"pixel_values": images, "label": labels}, features=features)
    table.to_parquet(tmp_path / "dogs.parquet")
    report = smoke(
        "stanford_dogs_mobilenetv3_qat_android",
        tmp_path / "runs",
        f"dataset.source={tmp_path / 'dogs.parquet'}",
        "dataset.image_size=64",
        "model.weights=none",
        "model.arch=resnet18",  # a third of the layers; the demo's recipe trains a MobileNetV3
        "passes.0.accumulate=1",
        "baseline=false",
        "exports=[{use='onnx'}]",
    )
    assert report["dataset"]["classes"] == breeds
