"""edgeopt's own plugins keep the contracts that it asks of others."""

# ruff: noqa: RUF012 - a contract is set up by the attributes of its class

import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import other_frameworks_contracts
import pytest
import test_adb
import test_convert
import test_coreml_contracts
import test_detection_contracts
import test_devices
import test_distill
import test_ncnn_contracts
import test_openvino_contracts
import test_prune_search
import test_prune_structured
import test_prune_unstructured
import test_segmentation
import test_segmentation_contracts
import test_tensorrt_contracts
import test_tflite_contracts
import test_tflm_contracts
import test_web_contracts
import tfds_files
from PIL import Image

from edgeopt.plugins.declarations import PLUGIN_TYPES, PassPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import (
    DatasetContract,
    ExporterContract,
    ModelContract,
    PassContract,
    ProbeContract,
    QuantizerContract,
    TaskContract,
    pass_context,
    tiny_data,
    tiny_model,
)

# ---- data sets -----------------------------------------------------------------------------------------------------


class TestDigits(DatasetContract):
    name = "digits"
    options = {"image_size": 16}


class TestFake(DatasetContract):
    name = "fake"
    options = {"image_size": 16, "class_count": 3, "images": 90}


def _write_images(folder: Path, count: int) -> None:
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


class LocalImages(DatasetContract):
    """A data set that reads files which the test writes: a folder, or `file` in it."""

    file = ""

    @pytest.fixture(scope="class")
    @classmethod
    def use(cls, registry, tmp_path_factory):
        folder = tmp_path_factory.mktemp("images")
        cls.write(folder)
        cls.options = {**cls.options, cls.path_option: str(folder / cls.file)}
        return resolve(cls.kind, cls.name, cls.options, registry)

    def test_unknown_option_is_an_error(self, use, registry):  # `use` first: it completes the options
        super().test_unknown_option_is_an_error(registry)


class TestImageFolder(LocalImages):
    name = "image-folder"
    options = {"image_size": 16}
    path_option = "path"

    @classmethod
    def write(cls, folder):
        _write_images(folder, 40)


class TestImageFolderWithSplits(TestImageFolder):
    @classmethod
    def write(cls, folder):
        for split, count in {"train": 30, "val": 6, "test": 6}.items():
            _write_images(folder / split, count)


class TestCsv(LocalImages):
    name = "csv"
    options = {"image_size": 16}
    path_option, file = "path", "labels.csv"

    @classmethod
    def write(cls, folder):
        _write_images(folder, 40)
        rows = [f"{name}/{file.name},{name}" for name in ("cat", "dog") for file in (folder / name).iterdir()]
        (folder / "labels.csv").write_text("\n".join(("image,label", *rows)))


class TestJsonl(LocalImages):
    name = "jsonl"
    options = {"image_size": 16}
    path_option, file = "path", "labels.jsonl"

    @classmethod
    def write(cls, folder):
        _write_images(folder, 40)
        rows = [
            {"image": f"{name}/{each.name}", "label": name}
            for name in ("cat", "dog")
            for each in (folder / name).iterdir()
        ]
        (folder / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))


class TestWebDataset(LocalImages):
    name = "webdataset"
    options = {"image_size": 16}
    path_option, file = "train", "a.tar"

    @classmethod
    def write(cls, folder):
        _write_images(folder / "images", 40)
        with tarfile.open(folder / "a.tar", "w") as tar:
            for name in ("cat", "dog"):
                for each in sorted((folder / "images" / name).iterdir()):
                    (folder / "label.txt").write_text(name)
                    tar.add(each, f"{name}-{each.name}")
                    tar.add(folder / "label.txt", f"{name}-{each.stem}.cls")


class TestTfds(LocalImages):
    name = "tfds"
    options = {"image_size": 16}
    path_option, file = "path", "pets/1.0.0"

    @classmethod
    def write(cls, folder):
        pytest.importorskip("tensorflow_datasets")
        tfds_files.pets(folder / cls.file)


class TestTorchvisionByName(LocalImages):
    name = "torchvision"
    options = {"image_size": 16, "name": "EuroSAT"}
    path_option = "root"

    @classmethod
    def write(cls, folder):
        _write_images(folder / "eurosat" / "2750", 40)


class TestShapes(DatasetContract):
    name = "shapes"
    options = {"image_size": 16, "drawn_size": 32, "images": 300}


class TestWavFolder(LocalImages):
    name = "wav-folder"
    options = {"image_size": 16, "seconds": 0.1, "copies": {"count": 1}}
    path_option = "path"

    @classmethod
    def write(cls, folder):
        """Two words, said by twelve speakers."""
        from scipy.io import wavfile

        random = np.random.default_rng(0)
        for word in ("yes", "no"):
            (folder / word).mkdir()
            for speaker in range(12):
                samples = random.normal(0, 3000, 1600).astype(np.int16)
                wavfile.write(folder / word / f"s{speaker}_nohash_0.wav", 16_000, samples)


class TestSpokenDigits(LocalImages):
    name = "spoken-digits"
    options = {"image_size": 16, "speakers": 8, "takes": 1}
    path_option = "folder"

    @classmethod
    def write(cls, folder):
        """Nothing: the synthesizer fills the folder when it is first asked for."""


class TestHuggingFace(LocalImages):
    name = "hugging-face"
    options = {"image_size": 16}
    path_option = "source"

    @classmethod
    def write(cls, folder):
        for split, count in {"train": 30, "test": 8}.items():
            _write_images(folder / split, count)


class TestCifar10(LocalImages):
    name = "cifar10"
    options = {"image_size": 16, "verify": False}
    path_option = "root"

    @classmethod
    def write(cls, folder):
        """Small files in the format of CIFAR-10's own."""
        import pickle

        batches = folder / "cifar-10-batches-py"
        batches.mkdir()
        random = np.random.default_rng(0)
        for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
            values = {
                "data": random.integers(0, 256, (60, 3072), dtype=np.uint8),
                "labels": (np.arange(60) % 10).tolist(),
            }
            (batches / name).write_bytes(pickle.dumps(values))
        labels = {"label_names": [f"class {index}" for index in range(10)]}
        (batches / "batches.meta").write_bytes(pickle.dumps(labels))


# ---- models --------------------------------------------------------------------------------------------------------


class TestTorchvision(ModelContract):
    name = "torchvision"
    options = {"arch": "mobilenet_v3_small"}


class TestTorchvisionWithConvolutionalHead(ModelContract):
    name = "torchvision"
    options = {"arch": "squeezenet1_1"}


class TestTimm(ModelContract):
    name = "timm"
    options = {"arch": "mobilenetv3_small_050"}


# ---- passes and quantizers -----------------------------------------------------------------------------------------


class TestTrain(PassContract):
    name = "train"
    options = {"epochs": 1, "batch_size": 8}


class TestPtq(PassContract):
    name = "ptq"


class TestQat(PassContract):
    name = "qat"
    options = {"epochs": 1, "batch_size": 8}


class TestXnnpack(QuantizerContract):
    name = "xnnpack"


class TestXnnpackSymmetric(QuantizerContract):
    name = "xnnpack-symmetric"


class TestXnnpackPerTensor(QuantizerContract):
    name = "xnnpack"
    options = {"per_channel": False}


# ---- probes --------------------------------------------------------------------------------------------------------


class TestSparsity(ProbeContract):
    name = "sparsity"


class TestBits(ProbeContract):
    name = "bits"


class TestBitsOfWeights(ProbeContract):
    name = "bits"
    options = {"inputs": 32}


class TestQuantization(ProbeContract):
    name = "quantization"


# ---- exporters -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def int8_program(tmp_path_factory):
    """A small network, quantized by `ptq`."""
    ptq = resolve(PassPlugin, "ptq", {}, load_registry())
    data = tiny_data()
    return ptq.plugin.apply(tiny_model(data), ptq.options, pass_context(tmp_path_factory.mktemp("ptq"), data))


class Int8(ExporterContract):
    """Exports an int8 program: its steps are 1/255 of a range, and kernels may round half a step another way."""

    tolerance = 0.05

    @pytest.fixture(scope="class")
    @classmethod
    def state(cls, int8_program):
        return int8_program

    def test_int8_is_smaller(self, use, exported, tmp_path):
        from edgeopt.testing.exporter import export_file
        from edgeopt.testing.values import tiny_program

        path, _ = export_file(use, tiny_program(), tmp_path)
        assert exported[0].stat().st_size < path.stat().st_size


class TestExecuTorch(ExporterContract):
    name = "executorch"
    test_each_accelerator_gives_a_verdict_on_each_operator = (
        None  # tests/plugins/test_accelerators.py holds answers to it
    )


class TestExecuTorchBatches(ExporterContract):
    name = "executorch"
    options = {"max_batch": 4}
    test_takes_a_program_of_two_outputs = None  # as the same exporter does without these options
    test_each_accelerator_gives_a_verdict_on_each_operator = None


class TestExecuTorchInt8(Int8):
    name = "executorch"
    test_each_accelerator_gives_a_verdict_on_each_operator = None


class TestOnnx(ExporterContract):
    name = "onnx"


class TestOnnxOneImage(ExporterContract):
    name = "onnx"
    options = {"dynamic_batch": False}
    test_takes_a_program_of_two_outputs = None  # as the same exporter does without these options


class TestOnnxRangesAtRunTime(ExporterContract):
    name = "onnx"
    options = {"precision": "dynamic-int8"}
    tolerance = 0.05
    takes_int8 = False
    test_takes_a_program_of_two_outputs = None  # as the same exporter does without these options


class TestExecuTorchRangesAtRunTime(ExporterContract):
    name = "executorch"
    options = {"precision": "dynamic-int8", "max_batch": 4}
    tolerance = 0.05
    takes_int8 = False
    test_takes_a_program_of_two_outputs = None  # as the same exporter does without these options
    test_each_accelerator_gives_a_verdict_on_each_operator = None


class TestOnnxInt8(Int8):
    name = "onnx"


class TestClassification(TaskContract):
    name, classes = "classification", ("a", "b", "c")

    @pytest.fixture(scope="class")
    @classmethod
    def targets(cls):
        return [0, 2, 1, 1, 0, 2]

    @pytest.fixture(scope="class")
    @classmethod
    def outputs(cls):
        return (np.eye(3, dtype=np.float32)[[0, 2, 1, 1, 0, 2]] * 5,)


NUMBERS = [
    np.random.default_rng(seed).normal(0, 1 + seed, (6, *shape)).astype(np.float32)
    for seed, shape in enumerate(((3, 4), (5,)))
]


class TestNumbers(TaskContract):
    name = "numbers"

    @pytest.fixture(scope="class")
    @classmethod
    def targets(cls):
        return list(zip(*NUMBERS, strict=True))

    @pytest.fixture(scope="class")
    @classmethod
    def outputs(cls):
        return tuple(NUMBERS)


class TestMultiLabel(TaskContract):
    name, classes = "multi-label", ("a", "b", "c")

    @pytest.fixture(scope="class")
    @classmethod
    def targets(cls):
        return [(1, 0, 1), (0, 0, 0), (0, 1, 1), (1, 1, 1), (0, 1, 0), (0, 0, 1)]

    @pytest.fixture(scope="class")
    @classmethod
    def outputs(cls, targets):
        return ((np.array(targets, dtype=np.float32) * 2 - 1) * 5,)


def test_every_plugin_is_here():
    """A new plugin gets a contract test with it."""
    modules = (
        sys.modules[__name__],
        test_detection_contracts,
        other_frameworks_contracts,
        test_adb,
        test_convert,
        test_coreml_contracts,
        test_devices,
        test_distill,
        test_openvino_contracts,
        test_prune_search,
        test_prune_structured,
        test_prune_unstructured,
        test_segmentation,
        test_segmentation_contracts,
        test_ncnn_contracts,
        test_tensorrt_contracts,
        test_tflite_contracts,
        test_tflm_contracts,
        test_web_contracts,
    )
    tested = {
        (each.kind.kind, each.name)
        for module in modules
        for each in vars(module).values()
        if hasattr(each, "kind") and hasattr(each, "name")
    }
    plugins = [entry.plugin for entry in load_registry() if entry.origin.name == "edgeopt"]
    own = {(plugin.kind, plugin.name) for plugin in plugins}
    assert {kind for kind, _ in own} == {kind.kind for kind in PLUGIN_TYPES}
    assert own <= tested
