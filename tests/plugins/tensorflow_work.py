"""What the tests of TensorFlow do in processes of their own, because PyTorch may stand in the tests' process.

`python tensorflow_work.py first|second FOLDER`: `first` makes model files, exports, and is killed in its second epoch
of training; `second` exports the same again, goes on with the training, and does everything else. What they find goes
into JSON files and arrays that the tests read.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.errors import PausedError, UserError
from edgeopt.options import Augmentation, TrainerSettings
from edgeopt.plugins.contexts import ExportContext, PassContext
from edgeopt.plugins.registry import missing_requirements
from edgeopt.preprocessing import Preprocessing
from edgeopt.progress import Silent
from edgeopt.tracking.tracked import TrackedRun
from edgeopt.tracking.trackers import Identity
from edgeopt.types import Card, ModelState, TrainingData
from edgeopt_tensorflow import exporter, plugin
from edgeopt_tensorflow.options import (
    ApplicationsOptions,
    ConvertedTfliteOptions,
    KerasFileOptions,
    KerasOnnxOptions,
    KerasReaderOptions,
    KerasTrainOptions,
    OnnxReaderOptions,
    SavedModelOptions,
)

SIZE, CLASSES = 24, ("left", "middle", "right")
KILLED = 9
PRECISIONS = ("float32", "float16", "dynamic-int8", "int8")
OPTIONS: dict[str, dict[str, Any]] = {
    **{precision: {"precision": precision} for precision in PRECISIONS},
    "int8-int8": {"precision": "int8", "quantized_io": "int8"},
    "int8-uint8": {"precision": "int8", "quantized_io": "uint8"},
}


@dataclass(frozen=True, eq=False)
class Images:
    images: Any
    labels: Any

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: Any) -> Any:
        return self.images[indices if isinstance(indices, slice) else np.asarray(indices, dtype=np.intp)].copy()


def split(count: int, seed: int) -> Images:
    """Noise that is brighter in a third of the image."""
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    images = random.integers(0, 140, (count, SIZE, SIZE, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, label * SIZE // 3 : (label + 1) * SIZE // 3] += 100
    return Images(images, labels)


def data() -> TrainingData:
    everything = Augmentation(
        horizontal_flip=False, crop_padding=1, crop_scale=0.9, rotation_degrees=3, brightness=0.1, contrast=0.1,
        saturation=0.1, erase=0.1,
    )  # fmt: skip
    return TrainingData(
        CLASSES, Preprocessing(SIZE, SIZE, SIZE), split(48, 0), split(24, 1), split(30, 2), "bars", everything
    )


def images() -> Any:
    return data().preprocessing.normalize(split(24, 3).images)


class Killing(Silent):
    """Progress that ends the process, as a power cut does, at the end of the second epoch, before its checkpoint."""

    @contextmanager
    def bar(self, label: str, total: float) -> Iterator[Any]:
        class Bar:
            said = 0

            def advance(self, steps: float = 1) -> None:
                pass

            def say(self, text: str) -> None:
                self.said += 1
                if self.said == 2:
                    os._exit(KILLED)

        yield Bar()


def network(activation: str | None = "softmax") -> Any:
    from edgeopt_tensorflow.runtime import keras

    layers = keras.layers
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.Conv2D(16, 3, strides=2, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
            layers.Conv2D(128, 1),
            layers.ReLU(),
            layers.Conv2D(16, 1),
            layers.Dropout(0.1),
            layers.Flatten(),
            layers.Dense(len(CLASSES), activation=activation),
        ]
    )


def make_files(folder: Path) -> None:
    """Model files, good and bad ones."""
    from edgeopt_tensorflow.runtime import keras, tf

    net = network()
    net.save(folder / "net.keras")
    net.save(folder / "net.h5")
    net.save_weights(folder / "net.weights.h5")
    net.export(folder / "net", verbose=False)
    inputs = keras.Input((SIZE, SIZE, 3)), keras.Input((SIZE, SIZE, 3))
    pooled = keras.layers.GlobalAveragePooling2D()
    keras.Model(inputs, pooled(inputs[0]) + pooled(inputs[1])).save(folder / "two-inputs.keras")
    keras.Model(inputs[0], [pooled(inputs[0]), pooled(inputs[0])]).save(folder / "two-outputs.keras")
    keras.Sequential([inputs[0], keras.layers.Lambda(lambda x: x + 1), pooled]).save(folder / "lambda.keras")
    keras.Sequential([inputs[0], keras.layers.Lambda(lambda x: x + 1), pooled]).save(folder / "lambda.h5")
    with zipfile.ZipFile(folder / "net.keras") as good, zipfile.ZipFile(folder / "custom.keras", "w") as bad:
        for name in good.namelist():
            content = good.read(name)
            if name == "config.json":
                content = content.replace(b'"module": "keras.layers"', b'"module": "os.path"', 1)
            bad.writestr(name, content)
    for name in ("net.keras", "net.h5"):
        content = (folder / name).read_bytes()
        (folder / f"half-{name}").write_bytes(content[: len(content) // 2])
    shutil.copytree(folder / "net", folder / "half-saved")
    file = folder / "half-saved" / "saved_model.pb"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (folder / "empty").mkdir()

    class Reader(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32)])
        def serve(self, x: Any) -> Any:
            secret = tf.strings.length(tf.io.read_file("/etc/hostname"))
            return tf.reduce_mean(x, axis=(1, 2)) + tf.cast(secret, tf.float32)

    reader = Reader()
    tf.saved_model.save(reader, str(folder / "reads-files"), signatures=reader.serve)


def built(folder: Path, name: str = "net.keras", **options: Any) -> ModelState:
    return plugin.build_file(KerasFileOptions(path=folder / name, **options), data())


def export(state: ModelState, folder: Path, make: Callable[..., Any], options: Any, name: str) -> Any:
    folder.mkdir(exist_ok=True)
    card = Card(state.classes, state.preprocessing.to_json(), "test", state.precision, "baseline", {"name": "t"}, {})
    return make(state, options, ExportContext(folder / name, card, Silent(), data().calibration))


def export_untrained(state: ModelState, folder: Path) -> None:
    """The files whose bytes are compared between processes."""
    export(state, folder, exporter.export_tflite, ConvertedTfliteOptions(precision="int8"), "model.tflite")
    export(state, folder, exporter.export_onnx, KerasOnnxOptions(), "model.onnx")
    export(state, folder, exporter.export_saved_model, SavedModelOptions(), "model.zip")


def train(
    state: ModelState,
    folder: Path,
    progress: Any = None,
    tracked: Any = None,
    pause_epochs: int | None = None,
    **options: Any,
) -> ModelState:
    folder.mkdir(exist_ok=True)
    wanted = KerasTrainOptions(**{"epochs": 3, "batch_size": 8, **options})
    settings, shown = TrainerSettings(), progress or Silent()
    context = PassContext(data(), settings, 5, folder, shown, tracked=tracked, pause_epochs=pause_epochs)
    return plugin.train(state, wanted, context)


def first(folder: Path) -> None:
    make_files(folder)
    state = built(folder)
    export_untrained(state, folder / "first")
    train(state, folder / "work", Killing())


def second(folder: Path) -> None:
    from saved_models import verdicts

    from edgeopt.conversion.worker import patterns
    from edgeopt_tensorflow.model import load_keras
    from edgeopt_tensorflow.runtime import keras

    found: dict[str, Any] = {"torch": "torch" in sys.modules}
    state = built(folder)
    before = weights(state)
    export_untrained(state, folder / "second")

    found["checkpoint"] = [file.name for file in (folder / "work").iterdir()]
    followed = TrackedRun(Identity("name", "key", folder), ("tensorboard",))
    try:
        train(state, folder / "work", pause_epochs=2)
    except PausedError as paused:
        found["paused"] = paused.epochs
    resumed, whole = train(state, folder / "work"), train(state, folder / "work-whole", tracked=followed)
    found["resumed_is_whole"] = bool(np.array_equal(weights(resumed), weights(whole)))
    found["input_untouched"] = bool(np.array_equal(weights(state), before))
    found["record"] = {
        "facts": whole.history[-1].facts,
        "curves": {curve.name: len(curve.y) for curve in whole.history[-1].curves},
    }
    frozen = train(state, folder / "work-frozen", epochs=1, freeze="backbone", optimizer="sgd", schedule="cosine")
    found["frozen"] = frozen.history[-1].facts
    found["frozen_changed"] = int((weights(frozen) != before).sum())
    train_more = train(frozen, folder / "work-more", epochs=1, schedule="constant", label_smoothing=0.1)
    found["unfrozen"] = train_more.history[-1].facts["trainable_parameters"]

    # what the model answers, and a saved copy of it
    trained = whole.foreign
    np.save(folder / "logits.npy", trained.logits(images()))
    (folder / "state").mkdir()
    trained.save(folder / "state")
    found["loaded_is_saved"] = bool(
        np.array_equal(load_keras(folder / "state").logits(images()), trained.logits(images()))
    )

    files: dict[str, Any] = {}
    for name, options in OPTIONS.items():
        made = export(
            whole, folder / "files", exporter.export_tflite, ConvertedTfliteOptions(**options), f"{name}.tflite"
        )
        files[name] = {"precision": made.precision, "facts": made.facts, "delegated": made.delegated_share}
    export(whole, folder / "files", exporter.export_onnx, KerasOnnxOptions(), "model.onnx")
    export(whole, folder / "files", exporter.export_saved_model, SavedModelOptions(), "model.zip")
    with exporter.open_saved_model(folder / "files/model.zip", 1) as opened:  # type: ignore[attr-defined]
        files["saved-model"] = float(np.abs(opened.predict(images())[0] - trained.logits(images())).max())
    found["files"] = files

    # the softmax of a file, and the scale that it expects
    softmax = network()
    nhwc = images().transpose(0, 2, 3, 1)
    probabilities = np.asarray(softmax(nhwc))
    found["softmax"] = {
        name: gap(built(folder, name).foreign.logits(images()), probabilities)
        for name in ("net.keras", "net.h5", "net")
    }
    pixels = split(24, 3).images.astype(np.float32)
    found["scales"] = {
        scale: gap(built(folder, scale=scale).foreign.logits(images()), np.asarray(softmax(expected)))
        for scale, expected in {"pixels": pixels, "unit": pixels / 255, "symmetric": pixels / 127.5 - 1}.items()
    }
    saved = built(folder, "net")
    made = export(saved, folder / "files", exporter.export_tflite, ConvertedTfliteOptions(), "saved.tflite")
    np.save(folder / "saved-logits.npy", saved.foreign.logits(images()))
    found["preprocessing"] = preprocessing_gaps()
    found["applications"] = applications(folder)
    found["errors"] = errors(folder, saved)
    found["saved_models"] = verdicts(folder / "looked-through")

    # conversions
    options = KerasReaderOptions(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), classes=CLASSES)
    read = plugin.read_keras(folder / "net.h5", options)
    shown = read.preprocessing.normalize(patterns(SIZE).images)
    expected = np.asarray(keras.models.load_model(folder / "net.h5", compile=False)(shown.transpose(0, 2, 3, 1)))
    found["read"] = {"classes": read.classes, "form": read.form, "gap": gap(read.foreign.logits(shown), expected)}
    found["onnx"] = onnx_sources(folder)
    found["wide"] = wide_grey(folder)
    found["several"] = several_outputs(folder)
    found["torch at the end"] = "torch" in sys.modules
    (folder / "found.json").write_text(json.dumps(found))


def wide_grey(folder: Path) -> dict[str, Any]:
    """A network of grey images of any size: read for 12 × 40 px, and exported."""
    from edgeopt_onnx.predictor import OnnxPredictor
    from edgeopt_tensorflow.runtime import keras
    from edgeopt_tflite.predictor import TflitePredictor

    layers = keras.layers
    network = keras.Sequential(
        [keras.Input((None, None, 1)), layers.Conv2D(8, 3), layers.GlobalMaxPooling2D(), layers.Dense(3)]
    )
    network.save(folder / "grey.keras")
    found: dict[str, Any] = {
        "open": message(lambda: plugin.read_keras(folder / "grey.keras", KerasReaderOptions())),
        "channels": message(lambda: built(folder, "grey.keras")),
    }
    state = plugin.read_keras(folder / "grey.keras", KerasReaderOptions(image_size=(12, 40)))
    shown = np.random.default_rng(0).normal(size=(2, *state.input_shape)).astype(np.float32)
    expected = np.asarray(network(shown.transpose(0, 2, 3, 1)))
    export(state, folder / "files", exporter.export_tflite, ConvertedTfliteOptions(), "grey.tflite")
    export(state, folder / "files", exporter.export_onnx, KerasOnnxOptions(), "grey.onnx")
    with TflitePredictor(folder / "files/grey.tflite") as lite, OnnxPredictor(folder / "files/grey.onnx") as open_onnx:
        answers = {
            "state": state.foreign.outputs(shown)[0],
            "tflite": lite.predict(shown)[0],
            "onnx": open_onnx.predict(shown)[0],
        }
    gaps = {name: float(np.abs(answer - expected).max()) for name, answer in answers.items()}
    return {**found, "shape": state.preprocessing.shape, "gaps": gaps}


def several_outputs(folder: Path) -> dict[str, Any]:
    """A network that returns a map, where it is above a limit, and a value a class: read from both forms, and exported."""
    from edgeopt_onnx.predictor import OnnxPredictor
    from edgeopt_tensorflow.runtime import keras
    from edgeopt_tflite.predictor import TflitePredictor

    layers = keras.layers
    given = keras.Input((SIZE, SIZE, 3))
    features = layers.Conv2D(5, 3, strides=2, name="features")(given)
    scores = layers.Dense(3, activation="softmax", name="scores")(layers.GlobalAveragePooling2D()(features))
    returned = {"map": features, "above": keras.ops.cast(features > 0.1, "int32"), "scores": scores}
    network = keras.Model(given, returned)
    network.save(folder / "several.keras")
    network.export(folder / "several", verbose=False)
    expected = {name: np.asarray(value) for name, value in network(images().transpose(0, 2, 3, 1)).items()}
    options = KerasReaderOptions(mean=(0, 0, 0), std=(1, 1, 1))
    found: dict[str, Any] = {"gaps": {}}

    def compare(what: str, names: Sequence[str], answers: Sequence[Any]) -> None:
        found["gaps"][what] = {
            name: float(np.abs(answer - expected[name]).max()) for name, answer in zip(names, answers, strict=True)
        }

    for name in ("several.keras", "several"):
        state = plugin.read_keras(folder / name, options)
        found[name] = [state.task.name, list(state.output_names), list(state.classes)]
        compare(name, state.output_names, state.foreign.outputs(images()))
    made = {
        "several.tflite": (exporter.export_tflite, ConvertedTfliteOptions(), TflitePredictor),
        "several.onnx": (exporter.export_onnx, KerasOnnxOptions(), OnnxPredictor),
        "several.zip": (
            exporter.export_saved_model,
            SavedModelOptions(),
            lambda path: exporter.open_saved_model(path, 1),
        ),
    }
    for name, (make, wanted, opened) in made.items():
        result = export(state, folder / "files", make, wanted, name)
        with opened(folder / "files" / name) as predictor:
            compare(name, [each.name for each in result.outputs], predictor.predict(images()))
    chosen = plugin.read_keras(folder / "several.keras", options.model_copy(update={"output": "scores"}))
    found["chosen"] = [chosen.task.name, gap(chosen.foreign.outputs(images())[0], expected["scores"])]
    found["built"] = message(lambda: built(folder, "several"))
    found["wrong"] = message(
        lambda: plugin.read_keras(folder / "several", options.model_copy(update={"output": "score"}))
    )
    return found


def weights(state: ModelState) -> Any:
    return np.concatenate([each.ravel() for each in state.foreign.network.get_weights()])  # type: ignore[attr-defined]


def gap(logits: Any, probabilities: Any) -> float:
    """Largest difference of the softmax of logits from probabilities."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return float(np.abs(powers / powers.sum(axis=1, keepdims=True) - probabilities).max())


def preprocessing_gaps() -> dict[str, float]:
    """How far each scale is from what Keras's own functions make of pixels."""
    from edgeopt_tensorflow.runtime import keras
    from edgeopt_tensorflow.scaling import rescaling

    pixels = split(4, 3).images.astype(np.float32)
    applications = keras.applications
    functions = {
        "symmetric": applications.mobilenet_v2,
        "imagenet": applications.densenet,
        "caffe": applications.resnet50,
    }
    gaps = {}
    for scale, module in functions.items():
        change = rescaling(data().preprocessing, scale)
        given = images()[:4].transpose(0, 2, 3, 1) * np.float32(change.scale) + np.float32(change.offset)
        expected = module.preprocess_input(pixels.copy())
        gaps[scale] = float(np.abs(given - (expected[..., ::-1] if scale == "caffe" else expected)).max())
    return gaps


def applications(folder: Path) -> dict[str, Any]:
    import inspect

    from edgeopt_tensorflow import applications as building
    from edgeopt_tensorflow.architectures import ARCHITECTURES
    from edgeopt_tensorflow.runtime import keras

    found: dict[str, Any] = {}
    own = {name for name, each in vars(keras.applications).items() if inspect.isfunction(each)}
    found["missing"] = sorted(own ^ set(ARCHITECTURES))
    wrong = []
    for name, architecture in ARCHITECTURES.items():
        arguments = inspect.signature(getattr(keras.applications, name)).parameters
        if ("alpha" in arguments, "include_preprocessing" in arguments) != (
            architecture.alpha,
            architecture.preprocessing == "option",
        ):
            wrong.append(name)
    found["wrong"] = wrong

    np.random.seed(3)
    size = Preprocessing(32, 32, 32)
    given = TrainingData(CLASSES, size, *[split(6, 0)] * 3, "", Augmentation())  # type: ignore[misc]
    efficient = plugin.build_application(ApplicationsOptions(arch="EfficientNetB0"), given)
    kinds = {type(layer).__name__ for layer in efficient.foreign.network.layers}  # type: ignore[attr-defined]
    found["efficientnet"] = sorted(kinds & {"Rescaling", "Normalization"})
    found["shape"] = list(efficient.foreign.logits(np.zeros((2, 3, 32, 32), np.float32)).shape)

    small: dict[str, Any] = {"arch": "MobileNet", "alpha": 0.25}
    five = TrainingData(("a", "b", "c", "d", "e"), size, *[split(6, 0)] * 3, "", Augmentation())  # type: ignore[misc]
    source = plugin.build_application(ApplicationsOptions(**small), five)
    source.foreign.network.save_weights(folder / "five.weights.h5")  # type: ignore[attr-defined]
    source.foreign.network.save(folder / "five.keras")  # type: ignore[attr-defined]
    theirs = source.foreign.network.layers[1].get_weights()[0]  # type: ignore[attr-defined]
    for file in ("five.weights.h5", "five.keras"):
        state = plugin.build_application(ApplicationsOptions(**small, weights=str(folder / file)), given)
        ours = state.foreign.network.layers[1].get_weights()[0]  # type: ignore[attr-defined]
        finite = all(np.isfinite(each).all() for each in state.foreign.network.get_weights())  # type: ignore[attr-defined]
        found[file] = [state.history[-1].facts["loaded"], bool(np.array_equal(ours, theirs)), finite]
    wider = ApplicationsOptions(arch="MobileNet", alpha=0.5, weights=str(folder / "five.weights.h5"))
    found["wider"] = message(lambda: plugin.build_application(wider, given))

    first_layer = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)])
    rgb = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
    blue_first = np.asarray(first_layer(rgb[..., ::-1]))
    building._swap_red_and_blue(first_layer)
    found["swapped"] = float(np.abs(np.asarray(first_layer(rgb)) - blue_first).max())
    return found


def message(action: Callable[[], Any]) -> str:
    """What a user is told; anything but a `UserError` is a bug and ends the process."""
    try:
        action()
    except UserError as error:
        return str(error)
    return "no error"


def errors(folder: Path, saved: ModelState) -> dict[str, str]:
    names = (
        "lambda.keras", "lambda.h5", "custom.keras", "half-net.keras", "half-net.h5", "net.weights.h5", "half-saved",
        "empty", "reads-files", "two-inputs.keras", "two-outputs.keras",
    )  # fmt: skip
    found = {name: message(lambda name=name: built(folder, name)) for name in names}  # type: ignore[misc]
    given = data()
    two = TrainingData(CLASSES[:2], given.preprocessing, given.train, given.train, given.train, "", Augmentation())
    large = TrainingData(CLASSES, Preprocessing(32, 32, 32), given.train, given.train, given.train, "", Augmentation())

    def build(data: TrainingData, name: str = "net.keras", **options: Any) -> Callable[[], Any]:
        return lambda: plugin.build_file(KerasFileOptions(path=folder / name, **options), data)

    found["classes"] = message(build(two))
    found["classes of a SavedModel"] = message(build(two, "net"))
    found["replaced"] = message(build(two, replace_head=True))
    found["size"] = message(build(large))
    found["training a SavedModel"] = message(lambda: train(saved, folder / "work-saved"))
    found["diverged"] = message(
        lambda: train(built(folder), folder / "work-diverged", optimizer="sgd", learning_rate=100.0, momentum=0.99)
    )
    return found


def missing_converters() -> list[str]:
    """What onnx2tf needs and is not installed."""
    (exporter,) = (each for each in plugin.edgeopt_exporters() if each.name == "onnx-tflite")
    return missing_requirements(exporter)


def padded() -> dict[str, Any]:
    """A largest of padded, positive values before and after its padding is spelled out."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    from edgeopt_tensorflow.onnx_convert import _pad_with_zeros

    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 1, 1]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2, "h", "w"]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph(nodes, "g", values[:1], values[1:]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    given = {"x": np.random.default_rng(0).normal(size=(1, 2, 9, 9)).astype(np.float32)}

    def answer() -> Any:
        content = model.SerializeToString()
        return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, given)[0]

    before = answer()
    _pad_with_zeros(model)
    onnx.checker.check_model(model)
    return {"same": bool(np.array_equal(before, answer())), "kinds": [node.op_type for node in model.graph.node]}


def onnx_sources(folder: Path) -> dict[str, Any]:
    """ONNX as a source: read, and converted by onnx2tf."""
    import onnx
    from onnx import TensorProto, helper

    options = OnnxReaderOptions()
    source = plugin.read_onnx(folder / "files/model.onnx", options)
    logits = source.foreign.outputs(images())[0]
    found: dict[str, Any] = {
        "gap": float(np.abs(logits - np.load(folder / "logits.npy")).max()),
        "classes": source.classes,
    }
    state = folder / "onnx-state"
    state.mkdir()
    source.foreign.save(state)
    from edgeopt_tensorflow.onnx_reader import load

    found["loaded_is_saved"] = bool(np.array_equal(load(state).outputs(images())[0], logits))

    content = (folder / "files/model.onnx").read_bytes()
    (folder / "half.onnx").write_bytes(content[: len(content) // 2])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in "abc"]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "g", values[:2], values[2:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), folder / "two-inputs.onnx")
    for name in ("half.onnx", "two-inputs.onnx"):
        found[name] = message(lambda name=name: plugin.read_onnx(folder / name, options))  # type: ignore[misc]

    found["padded"] = padded()
    if missing_converters():
        return found
    for precision in ("float32", "int8"):
        wanted = ConvertedTfliteOptions(precision=precision)
        made = export(source, folder / "files", exporter.convert_onnx_to_tflite, wanted, f"onnx-{precision}.tflite")
        found[precision] = made.facts
    proto = onnx.load(folder / "files/model.onnx")
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(proto, folder / "four.onnx")
    found["four"] = message(
        lambda: exporter.convert_onnx_to_tflite(plugin.read_onnx(folder / "four.onnx", options), wanted, None)  # type: ignore[arg-type]
    )
    quantized = replace(source, precision="int8")
    found["quantized"] = message(
        lambda: export(quantized, folder / "files", exporter.convert_onnx_to_tflite, wanted, "no")
    )
    none = SavedModelOptions()
    export(source, folder / "files", exporter.convert_onnx_to_saved_model, none, "onnx.zip")
    with exporter.open_saved_model(folder / "files/onnx.zip", 1) as opened:  # type: ignore[attr-defined]
        found["saved-model"] = float(np.abs(opened.predict(images())[0] - logits).max())
    return found


if __name__ == "__main__":
    {"first": first, "second": second}[sys.argv[1]](Path(sys.argv[2]))
