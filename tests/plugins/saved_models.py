"""SavedModels that only compute, and some that do more, each looked through; for a process that has TensorFlow alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from edgeopt.plugins import CheckpointError
from edgeopt_tensorflow.saved_model_check import require_computation

SPEC = tf.TensorSpec((None, 8, 8, 3), tf.float32)


def verdicts(folder: Path) -> dict[str, str]:
    """What `require_computation` says of each SavedModel, which are written below `folder`; empty where it lets it pass."""
    computing = {"keras": save_layers, "module": save_module, "session": save_session, "old-keras": save_old_keras}
    for name, save in computing.items():
        save(folder / name)
    for name, reach in reaching(folder).items():
        save_function(folder / name, reach)
    for name, change in CHANGES.items():
        save_module(folder / name)
        edit(folder / name / "saved_model.pb", change)
    return {name: said(folder / name) for name in [*computing, *reaching(folder), *CHANGES]}


def said(folder: Path) -> str:
    try:
        require_computation(folder)
    except CheckpointError as error:
        return str(error)
    return ""


def save_function(folder: Path, body: Callable[[Any], Any]) -> None:
    class Module(tf.Module):
        @tf.function(input_signature=[SPEC])
        def serve(self, x):
            return body(tf.reduce_mean(x, (1, 2)))

    module = Module()
    tf.saved_model.save(module, str(folder), signatures=module.serve)


def reaching(folder: Path) -> dict[str, Callable[[Any], Any]]:
    """Functions that do more than compute."""
    file = str(folder / "reached.txt")

    def after(action: Any, x: Any) -> Any:
        with tf.control_dependencies([action]):
            return tf.identity(x)

    def in_a_branch(x: Any) -> Any:
        return tf.cond(tf.reduce_sum(x) > 0, lambda: after(tf.io.write_file(file, "x"), x), lambda: x)

    def from_lines(x: Any) -> Any:
        return x + tf.cast(tf.data.TextLineDataset([file]).reduce(tf.constant(0), lambda n, _: n + 1), tf.float32)

    def watched(x: Any) -> Any:
        return tf.raw_ops.DebugIdentityV2(input=x, tfdbg_context_id="a", op_name="b", debug_urls=[f"file://{folder}"])

    return {
        "prints": lambda x: after(tf.print(x, output_stream=f"file://{file}"), x),
        "python": lambda x: tf.numpy_function(lambda y: y, [x], tf.float32),
        "writes-in-a-branch": in_a_branch,
        "lines": from_lines,
        "debugs": watched,
    }


def save_layers(folder: Path) -> None:
    """Most of the layers that image networks have, with the preprocessing that Keras puts into networks."""
    x = images = keras.Input((16, 16, 3))
    for layer in (
        keras.layers.Rescaling(1 / 127.5, -1),
        keras.layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 1.0, 1.0]),
        keras.layers.RandomFlip(),
        keras.layers.RandomRotation(0.1),
        keras.layers.RandomZoom(0.1),
        keras.layers.RandomContrast(0.1),
        keras.layers.Resizing(12, 12),
        keras.layers.ZeroPadding2D(2),
        keras.layers.CenterCrop(14, 14),
        keras.layers.Conv2D(8, 3, strides=2),
        keras.layers.BatchNormalization(),
        keras.layers.LeakyReLU(),
        keras.layers.SeparableConv2D(8, 3, padding="same"),
        keras.layers.PReLU(),
        keras.layers.DepthwiseConv2D(3, dilation_rate=2, padding="same"),
        keras.layers.ReLU(6.0),
        keras.layers.SpatialDropout2D(0.1),
        keras.layers.Conv2DTranspose(8, 3, strides=2),
        keras.layers.Activation("gelu"),
        keras.layers.LayerNormalization(),
        keras.layers.GroupNormalization(2),
        keras.layers.UpSampling2D(2, interpolation="bilinear"),
        keras.layers.AveragePooling2D(2),
        keras.layers.MaxPooling2D(2),
        keras.layers.GaussianNoise(0.1),
    ):
        x = layer(x)
    x = keras.layers.Concatenate()([x, keras.layers.Activation("hard_swish")(x)])
    rows = keras.layers.Reshape((-1, 16))(x)
    rows = keras.layers.MultiHeadAttention(2, 8)(rows, rows)
    rows = keras.layers.Bidirectional(keras.layers.LSTM(4))(rows)
    pooled = keras.layers.GlobalMaxPooling2D()(x)
    x = keras.layers.Dropout(0.2)(keras.layers.Concatenate()([rows, pooled]))
    keras.Model(images, keras.layers.Dense(4, activation="softmax")(x)).export(folder, verbose=False)


def save_module(folder: Path) -> None:
    """A module with a loop, a branch and a check of shapes."""

    class Module(tf.Module):
        def __init__(self) -> None:
            self.weight = tf.Variable(tf.ones((3, 4)))

        @tf.function(input_signature=[SPEC])
        def serve(self, x):
            tf.debugging.assert_greater(tf.shape(x)[0], 0, message="no images")
            x = tf.while_loop(lambda n, _: n < 3, lambda n, y: (n + 1, 1.1 * y), [0, tf.reduce_mean(x, (1, 2))])[1]
            return tf.matmul(tf.cond(tf.reduce_sum(x) > 0, lambda: x, lambda: -x), self.weight)

    module = Module()
    tf.saved_model.save(module, str(folder), signatures=module.serve)


def save_session(folder: Path) -> None:
    """As TensorFlow 1 saved networks."""
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        x = v1.placeholder(tf.float32, (None, 8, 8, 3))
        y = tf.matmul(tf.reduce_mean(x, (1, 2)), v1.get_variable("w", initializer=tf.ones((3, 4))))
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            v1.saved_model.simple_save(session, str(folder), {"x": x}, {"y": y})


def save_old_keras(folder: Path) -> None:
    """As Keras 2 saved networks."""
    import tf_keras

    layers = tf_keras.layers
    network = tf_keras.Sequential(
        [layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Dropout(0.1), layers.Flatten(), layers.Dense(3)]
    )
    network.save(folder, save_format="tf")


def edit(file: Path, change: Callable[[Any], None]) -> None:
    proto = SavedModel()
    proto.ParseFromString(file.read_bytes())
    change(proto.meta_graphs[0])
    file.write_bytes(proto.SerializeToString())


def _save_when_called(meta: Any) -> None:
    saving = next(node for node in meta.graph_def.node if node.name == meta.saver_def.save_tensor_name.split(":")[0])
    for function in meta.graph_def.library.function:
        if function.signature.name.startswith("__inference_signature_wrapper"):
            function.node_def.append(saving)


def _save_when_restored(meta: Any) -> None:
    meta.saver_def.restore_op_name = meta.saver_def.save_tensor_name.split(":")[0]


def _save_as_a_function_of_an_object(meta: Any) -> None:
    name = next(f.signature.name for f in meta.graph_def.library.function if "traced_save" in f.signature.name)
    meta.object_graph_def.concrete_functions[name].SetInParent()


def _unknown(meta: Any) -> None:
    meta.graph_def.library.function[0].node_def.add(op="LaterOperator", name="new")


#: What a file can do to be written by someone else's code path than its signature.
CHANGES: dict[str, Callable[[Any], None]] = {
    "saves-when-called": _save_when_called,
    "saves-when-restored": _save_when_restored,
    "saves-by-an-object": _save_as_a_function_of_an_object,
    "unknown": _unknown,
}
