"""Models of TensorFlow and Keras: training, files, conversions and mistakes; what needs TensorFlow is in
`tensorflow_work`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from pydantic import ValidationError
from tensorflow_work import CLASSES, KILLED, OPTIONS, PRECISIONS, SIZE, images, missing_converters

from edgeopt.errors import ExportError
from edgeopt_tensorflow import exporter
from edgeopt_tensorflow.architectures import ARCHITECTURES
from edgeopt_tensorflow.augment import augment
from edgeopt_tensorflow.options import (
    ApplicationsOptions,
    ConvertedTfliteOptions,
)
from edgeopt_tflite.metadata import read_metadata

needs_onnx2tf = pytest.mark.skipif(bool(missing_converters()), reason=f"not installed: {missing_converters()}")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both processes have worked; once for all of pytest's own processes, as TensorFlow takes
    seconds to import.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tensorflow"
    shared.mkdir(exist_ok=True)
    with FileLock(shared / "lock"):
        if not (shared / "found.json").exists():
            assert work("first", shared) == KILLED
            assert work("second", shared) == 0
    return shared


def work(step: str, folder: Path) -> int:
    command = [sys.executable, str(Path(__file__).with_name("tensorflow_work.py")), step, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    print(done.stdout[-2000:], done.stderr[-4000:])  # shown where the test fails
    return done.returncode


@pytest.fixture(scope="session")
def found(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return values


@pytest.fixture(scope="session")
def logits(folder: Path) -> Any:
    return np.load(folder / "logits.npy")


def difference(folder: Path, name: str, expected: Any) -> float:
    """Of a file in LiteRT, as a share of the range of what is expected."""
    with exporter.open_tflite(folder / "files" / name, 1) as opened:  # type: ignore[attr-defined]
        got = opened.predict(images())[0]
    assert got.dtype == np.float32
    return float(np.abs(got - expected).max() / np.ptp(expected))


# ---- training ------------------------------------------------------------------------------------------------------


def test_a_killed_training_ends_like_a_whole_one(found):
    assert found["checkpoint"] == ["keras-train.npz"]
    assert found["resumed_is_whole"]
    assert found["paused"] == 2
    assert found["input_untouched"]


def test_training_learns_and_says_how(found):
    facts, curves = found["record"]["facts"], found["record"]["curves"]
    assert facts["validation_accuracy"] > 0.8
    assert facts["epochs_run"] == 3
    assert facts["batch_norms"] == 2
    assert curves == dict.fromkeys(("training loss", "validation loss", "validation accuracy", "learning rate"), 3)


def test_every_epoch_is_logged(found, folder):
    event_files = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    (file,) = (folder / "tensorboard" / "key").iterdir()
    logged = [
        (event.step, {value.tag: value.simple_value for value in event.summary.value})
        for event in event_files.LegacyEventFileLoader(str(file)).Load()
        if event.summary.value
    ]
    assert [step for step, _ in logged] == [1, 2, 3]
    facts = found["record"]["facts"]
    _, kept = logged[facts["best_epoch"] - 1]
    assert kept["keras-train/validation accuracy"] == pytest.approx(facts["validation_accuracy"])


def test_a_frozen_backbone_keeps_its_weights_until_it_is_freed(found):
    head = found["frozen"]["trainable_parameters"]
    assert found["frozen_changed"] == head
    assert found["frozen"]["frozen_layers"] == 6
    assert found["unfrozen"] == found["record"]["facts"]["trainable_parameters"] > head


def test_augmentation_changes_images_and_follows_its_seed():
    from edgeopt.options import Augmentation

    pixels = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    for name, value in {
        "horizontal_flip": True, "crop_padding": 3, "crop_scale": 0.5, "rotation_degrees": 30.0, "brightness": 0.5,
        "contrast": 0.5, "saturation": 0.9, "erase": 1.0,
    }.items():  # fmt: skip
        wanted = Augmentation(**{name: value})
        one, same, other = (augment(pixels, wanted, np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert one.dtype == np.uint8 and one.shape == pixels.shape
        assert np.array_equal(one, same), name
        assert not np.array_equal(one, pixels), name
        assert not np.array_equal(one, other), name
        for shape in ((4, 10, 30, 3), (4, 30, 10, 1)):
            given = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
            assert augment(given, wanted, np.random.default_rng(1)).shape == shape, name
    still = augment(pixels, Augmentation(rotation_degrees=1e-9), np.random.default_rng(0))
    assert np.abs(still.astype(int) - pixels).max() <= 1, "a rotation by nothing moves images"


# ---- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("float32", 1e-5),
        ("float16", 5e-3),
        ("dynamic-int8", 0.05),
        ("int8", 0.08),
        ("int8-int8", 0.08),
        ("int8-uint8", 0.08),
    ],
)
def test_tflite_agrees_with_the_network_in_every_precision(name, limit, folder, found, logits):
    assert difference(folder, f"{name}.tflite", logits) < limit
    assert found["files"][name]["precision"] == OPTIONS[name]["precision"]
    assert found["files"][name]["delegated"] == 1.0


def test_tflite_precisions_are_what_they_say(folder, found):
    facts = {name: found["files"][name]["facts"] for name in PRECISIONS}
    assert facts["float32"]["layers"] == 5
    assert facts["float32"]["layers_with_int8_weights"] == facts["float32"]["layers_with_float16_weights"] == 0
    assert facts["float16"]["layers_with_float16_weights"] == 5
    assert facts["dynamic-int8"]["layers_with_int8_weights"] > facts["dynamic-int8"]["layers_quantized"] == 0
    assert facts["int8"]["layers_quantized"] == 5
    sizes = [(folder / f"files/{name}.tflite").stat().st_size for name in PRECISIONS]
    assert max(sizes[1:]) < sizes[0]


def test_tflite_carries_its_card(folder):
    metadata = read_metadata(folder / "files/int8-uint8.tflite")
    assert metadata.labels == CLASSES
    assert metadata.card["precision"] == "int8"
    assert metadata.card["input"]["dtype"] == "uint8"
    assert metadata.card["input"]["layout"] == "NHWC"
    assert metadata.card["input"]["shape"] == [1, SIZE, SIZE, 3]


def test_onnx_takes_any_batch_and_carries_its_card(folder, logits):
    with exporter.open_onnx(folder / "files/model.onnx", 1) as opened:  # type: ignore[attr-defined]
        assert opened.input_info.shape == ("batch", 3, SIZE, SIZE)
        for count in (1, 5, 24):
            assert np.abs(opened.predict(images()[:count])[0] - logits[:count]).max() < 1e-4
        card = json.loads(opened.metadata("edgeopt_card"))
    assert card["classes"] == list(CLASSES)
    assert card["output"]["name"] == opened.output_infos[0].name == "logits"


def test_saved_model_is_a_whole_folder(folder, found):
    with zipfile.ZipFile(folder / "files/model.zip") as archive:
        assert {"saved_model.pb", "variables/variables.index", "assets.extra/edgeopt_card.json"} <= set(
            archive.namelist()
        )
    assert found["files"]["saved-model"] < 1e-4


@pytest.mark.parametrize("name", ["model.tflite", "model.onnx", "model.zip"])
def test_another_process_writes_the_same_bytes(name, folder, found):
    assert (folder / "first" / name).read_bytes() == (folder / "second" / name).read_bytes()


@pytest.mark.parametrize(("name", "opens"), [("model.onnx", exporter.open_onnx), ("int8.tflite", exporter.open_tflite)])
def test_half_a_file_is_refused(name, opens, folder, found, tmp_path):
    content = (folder / "files" / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ExportError):
        opens(tmp_path / name, 1)


# ---- models --------------------------------------------------------------------------------------------------------


def test_a_softmax_becomes_logits(found):
    """Taken off where it is the last layer's, undone by a logarithm in a SavedModel."""
    assert set(found["softmax"]) == {"net.keras", "net.h5", "net"}
    assert max(found["softmax"].values()) < 1e-5


def test_a_saved_model_can_be_exported(folder, found):
    assert difference(folder, "saved.tflite", np.load(folder / "saved-logits.npy")) < 1e-4


def test_files_get_the_scale_that_they_expect(found):
    assert max(found["scales"].values()) < 1e-4
    assert max(found["preprocessing"].values()) < 1e-4, "other than Keras's own preprocessing"


def test_applications_are_those_of_keras(found):
    assert found["applications"]["missing"] == []
    assert found["applications"]["wrong"] == []


def test_applications_leave_scaling_to_the_recipe(found):
    assert found["applications"]["efficientnet"] == []
    assert found["applications"]["shape"] == [2, 3]
    assert found["applications"]["swapped"] < 1e-5


@pytest.mark.parametrize("name", ["five.weights.h5", "five.keras"])
def test_weights_with_other_classes_keep_a_fresh_head(name, found):
    said, are_equal, are_finite = found["applications"][name]
    assert said == "54 of 55 layers; the last layer starts anew, as it has other classes"
    assert are_equal
    assert are_finite


def test_weights_of_another_width_are_refused(found):
    assert "does not fit the network: 54 layers differ" in found["applications"]["wider"]


def test_a_saved_state_answers_alike(found):
    assert found["loaded_is_saved"]
    assert found["onnx"]["loaded_is_saved"]


# ---- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lambda.keras", "is code (Lambda), which edgeopt does not run from a file"),
        ("lambda.h5", "is code (Lambda), which edgeopt does not run from a file"),
        ("custom.keras", "is defined in os.path"),
        ("half-net.keras", "cannot be read as a Keras model"),
        ("half-net.h5", "cannot be read as a Keras model"),
        ("net.weights.h5", "holds weights and no description of the network"),
        ("half-saved", "saved_model.pb is damaged"),
        ("empty", "holds no saved_model.pb"),
        ("reads-files", "from a file: ReadFile (ReadFile), StringLength (StringLength)"),
        ("two-inputs.keras", "has 2 inputs: "),
        ("two-outputs.keras", "has 2 outputs: "),
        ("classes", "set replace_head = true"),
        ("classes of a SavedModel", "a SavedModel's last layer cannot be replaced"),
        ("replaced", "no error"),
        ("size", "set image_size to 24"),
        ("training a SavedModel", "cannot be trained"),
        ("diverged", "try a smaller learning_rate"),
    ],
)
def test_mistakes_are_explained(name, text, found):
    assert text in found["errors"][name]


@pytest.mark.parametrize("name", ["keras", "module", "session", "old-keras"])
def test_a_saved_model_that_only_computes_is_let_pass(name, found):
    assert found["saved_models"][name] == ""


@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("prints", "PrintV2"),
        ("python", "PyFunc"),
        ("writes-in-a-branch", "WriteFile (cond/WriteFile)"),
        ("lines", "TextLineDataset"),
        ("debugs", "DebugIdentityV2"),
        ("saves-when-called", "SaveV2"),
        ("saves-when-restored", "SaveV2"),
        ("saves-by-an-object", "SaveV2"),
        ("unknown", "LaterOperator (new)"),
    ],
)
def test_a_saved_model_that_reaches_outside_is_refused(name, operator, found):
    assert "has operators that edgeopt does not run from a file" in found["saved_models"][name]
    assert operator in found["saved_models"][name]


@pytest.mark.parametrize(
    ("options", "values", "text"),
    [
        (ApplicationsOptions, {"arch": "MobileNetV9"}, "did you mean 'MobileNet"),
        (ApplicationsOptions, {"arch": "ResNet50", "alpha": 0.5}, "ResNet50 has no alpha"),
        (ApplicationsOptions, {"arch": "ResNet50", "weights": "best"}, "is not"),
        (ConvertedTfliteOptions, {"quantized_io": "int8"}, 'needs precision = "int8"'),
    ],
)
def test_options_that_do_not_fit(options, values, text):
    with pytest.raises(ValidationError, match=text):
        options(**values)


def test_every_architecture_is_offered():
    schema = ApplicationsOptions.model_json_schema()
    assert schema["properties"]["arch"]["enum"] == sorted(ARCHITECTURES)


# ---- conversions ---------------------------------------------------------------------------------------------------


def test_wide_grey_keras_files_are_read_and_written(found):
    wide = found["wide"]
    assert "takes images of any size" in wide["open"] and "--size 96x160" in wide["open"]
    assert wide["shape"] == [12, 40, 1]
    assert wide["gaps"] and max(wide["gaps"].values()) < 1e-4
    assert "takes images of 1 channel, and those of the data set have 3" in wide["channels"]
    assert "set channels to 1" in wide["channels"]


def test_several_outputs_of_keras_are_read_and_written_by_their_names(found):
    several, names = found["several"], ["above", "map", "scores"]
    assert several["several.keras"] == several["several"] == ["numbers", names, []]
    assert set(several["gaps"]) == {"several.keras", "several", "several.tflite", "several.onnx", "several.zip"}
    for gaps in several["gaps"].values():
        assert list(gaps) == names
        assert gaps["above"] == 0 and max(gaps.values()) < 1e-4
    assert several["chosen"] == ["classification", pytest.approx(0, abs=1e-5)]
    assert "returns above, map, scores, not one value a class" in several["built"]
    assert "has no output 'score', as source.output says" in several["wrong"]
    assert "did you mean 'scores'?" in several["wrong"]


def test_a_keras_file_is_read_for_a_conversion(found):
    assert found["read"] == {"classes": list(CLASSES), "form": "program", "gap": pytest.approx(0, abs=1e-5)}


def test_an_onnx_file_is_read_for_a_conversion(found):
    assert found["onnx"]["gap"] < 1e-4
    assert found["onnx"]["classes"] == ["0", "1", "2"]
    assert "cannot be read as an ONNX model" in found["onnx"]["half.onnx"]
    assert "has 2 inputs: a, b" in found["onnx"]["two-inputs.onnx"]


def test_padding_before_a_largest_value_is_zeros(found):
    assert found["onnx"]["padded"] == {"same": True, "kinds": ["Relu", "Pad", "MaxPool"]}


@needs_onnx2tf
def test_onnx_becomes_tflite_and_a_saved_model(folder, found, logits):
    assert difference(folder, "onnx-float32.tflite", logits) < 1e-4
    assert difference(folder, "onnx-int8.tflite", logits) < 0.08
    assert found["onnx"]["int8"]["layers_quantized"] == 5
    assert found["onnx"]["saved-model"] < 1e-4
    assert "takes 4 images at once" in found["onnx"]["four"]
    assert "convert the float model" in found["onnx"]["quantized"]


def test_no_process_of_tensorflow_imports_pytorch(found):
    assert not found["torch"]
    assert not found["torch at the end"]
