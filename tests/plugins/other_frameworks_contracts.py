"""Plugins of TensorFlow and ONNX keep edgeopt's contracts. `test_other_frameworks` runs this file in a process without
torch: neither bears the other beside it.
"""

# ruff: noqa: RUF012 - a contract is set up by the attributes of its class

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgeopt.plugins import Form, ModelState
from edgeopt.plugins.registry import missing_requirements
from edgeopt.recipe.lookup import resolve
from edgeopt.testing import ArraySplit, ExporterContract, ModelContract, PassContract, ReaderContract, tiny_data

SIZE = 32


def network(classes=3, activation=None):
    from edgeopt_tensorflow.runtime import keras

    layers = keras.layers
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.Conv2D(8, 3, strides=2, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3),
            layers.ReLU(6.0),
            layers.GlobalAveragePooling2D(),
            layers.Dense(classes, activation=activation),
        ]
    )


def keras_state(form=Form.PROGRAM):
    from edgeopt.tasks import TASKS
    from edgeopt_tensorflow.model import KerasModel

    data = tiny_data()
    return ModelState(
        KerasModel(network()), form, TASKS["classification"], data.classes, data.preprocessing, framework="keras"
    )


def write_onnx(folder):
    """A small network of ONNX's own operators, of any batch."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = {
        "kernel": random.standard_normal((8, 3, 3, 3)).astype(np.float32) / 5,
        "matrix": random.standard_normal((8, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["maps"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "matrix"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    path = folder / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


# ---- models and passes ---------------------------------------------------------------------------------------------


class TestKerasApplications(ModelContract):
    name = "keras-applications"
    options = {"arch": "MobileNet", "alpha": 0.25}


class TestKerasFile(ModelContract):
    name = "keras-file"
    any_classes = False  # a file has a head of its own

    @pytest.fixture(scope="class")
    @classmethod
    def use(cls, registry, tmp_path_factory):
        path = tmp_path_factory.mktemp("file") / "model.keras"  # as the option's example is called
        network().save(path)
        cls.options = {**cls.options, "path": str(path)}
        return resolve(cls.kind, cls.name, cls.options, registry)

    def test_unknown_option_is_an_error(self, use, registry):  # `use` first: it completes the options
        super().test_unknown_option_is_an_error(registry)

    def test_printed_toml_can_be_pasted(self, use, registry, monkeypatch):
        monkeypatch.chdir(Path(self.options["path"]).parent)
        super().test_printed_toml_can_be_pasted(use, registry)


class TestKerasFileWithAFreshHead(TestKerasFile):
    options = {"replace_head": True}
    any_classes = True


class TestKerasTrain(PassContract):
    name = "keras-train"
    options = {"epochs": 1, "batch_size": 8}

    @pytest.fixture(scope="class")
    @classmethod
    def state(cls):
        return keras_state(Form.MODULE)


# ---- exporters -----------------------------------------------------------------------------------------------------


class OfKeras(ExporterContract):
    @pytest.fixture(scope="class")
    @classmethod
    def state(cls):
        return keras_state()


class TestKerasTflite(OfKeras):
    name = "keras-tflite"


class TestKerasTfliteInt8(OfKeras):
    name = "keras-tflite"
    options = {"precision": "int8", "quantized_io": "int8"}
    tolerance = 0.05

    @pytest.fixture(scope="class")
    @classmethod
    def images(cls):
        """As those that the exporter calibrates with: outside their ranges an int8 file knows nothing."""
        split = tiny_data().validation
        return ArraySplit(split.images[:7], split.labels[:7])


class TestKerasOnnx(OfKeras):
    name = "keras-onnx"


class TestKerasSavedModel(OfKeras):
    name = "keras-saved-model"


class OfOnnx(ExporterContract):
    @pytest.fixture(scope="class")
    @classmethod
    def state(cls, registry, use, tmp_path_factory):
        if missing := missing_requirements(use.plugin):
            pytest.skip(f"not installed: {', '.join(missing)}")
        from edgeopt.plugins import ReaderPlugin

        reader = resolve(ReaderPlugin, "onnx", {}, registry)
        return reader.plugin.read(write_onnx(tmp_path_factory.mktemp("source")), reader.options)


class TestOnnxTflite(OfOnnx):
    name = "onnx-tflite"


class TestOnnxSavedModel(OfOnnx):
    name = "onnx-saved-model"


class TestOnnxTensorRt(OfOnnx):
    name = "onnx-tensorrt"


class TestOnnxTensorRtRtx(OfOnnx):
    name = "onnx-tensorrt-rtx"


# ---- readers -------------------------------------------------------------------------------------------------------


class TestKerasReader(ReaderContract):
    name = "keras"

    @classmethod
    def write(cls, folder):
        network().save(folder / "net.keras")
        return folder / "net.keras"


class TestSavedModelReader(ReaderContract):
    name = "saved-model"

    @classmethod
    def write(cls, folder: Path) -> Path:
        network().export(folder / "net", verbose=False)
        return folder / "net"


class TestOnnxReader(ReaderContract):
    name = "onnx"

    @classmethod
    def write(cls, folder):
        return write_onnx(folder)


def test_torch_did_not_come_in():
    assert "torch" not in sys.modules
