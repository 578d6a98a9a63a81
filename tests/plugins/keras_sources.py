"""Makes Keras files of several ages and precisions, reads them, and prints what was found as JSON.

`python keras_sources.py FOLDER`, in a process without PyTorch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import h5py
import numpy as np

from edgeopt.errors import CheckpointError
from edgeopt_tensorflow.keras_files import read
from edgeopt_tensorflow.model import load_saved_model
from edgeopt_tensorflow.options import KerasReaderOptions
from edgeopt_tensorflow.runtime import keras, tf


def main(folder: Path) -> None:
    import tf_keras

    size, layers, old = 16, keras.layers, tf_keras.layers
    images = np.random.default_rng(0).normal(size=(3, 3, size, size)).astype(np.float32)
    expected = {}

    def keep(name: str, network: object) -> None:
        network.save(folder / name)  # type: ignore[attr-defined]
        expected[name] = np.asarray(network(images.transpose(0, 2, 3, 1)), np.float32)  # type: ignore[operator]

    for policy in ("mixed_float16", "mixed_bfloat16", "float16"):
        keras.mixed_precision.set_global_policy(policy)
        given = keras.Input((size, size, 3))
        hidden = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(layers.Conv2D(8, 3)(given)))
        keep(f"{policy}.keras", keras.Model(given, layers.Activation("softmax")(layers.Dense(3)(hidden))))
    keras.mixed_precision.set_global_policy("float32")
    given = keras.Input((size, size, 3))
    keep("sigmoid.keras", keras.Model(given, layers.Dense(1, activation="sigmoid")(layers.Flatten()(given))))

    given = tf_keras.Input((size, size, 3))
    hidden = old.BatchNormalization()(old.DepthwiseConv2D(3, padding="same")(given))
    hidden = old.GlobalAveragePooling2D()((tf.nn.relu(hidden) * 2.0)[:, 1:, 1:, :])
    network = tf_keras.Model(given, old.Dense(3, activation="softmax")(hidden))
    keep("old.h5", network)
    keep("old.keras", network)
    found: dict[str, object] = several(folder, images)
    for name, probabilities in expected.items():
        state = read(folder / name, KerasReaderOptions())
        logits = state.foreign.outputs(images)[0]
        soft = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        if probabilities.shape[1] == 1:
            probabilities = np.concatenate([1 - probabilities, probabilities], 1)  # noqa: PLW2901
        found[name] = float(np.abs(soft - probabilities).max())
    kept = folder / "kept"
    kept.mkdir()
    state.foreign.save(kept)
    found["kept"] = float(np.abs(load_saved_model(kept).logits(images) - logits).max())
    with h5py.File(folder / "old.h5", "r+") as file:
        text = file.attrs["model_config"]
        file.attrs["model_config"] = text.replace('"math.multiply"', '"io.read_file"')
    try:
        read(folder / "old.h5", KerasReaderOptions())
    except CheckpointError as error:
        found["refused"] = str(error)
    print(json.dumps(found))


def several(folder: Path, images: np.ndarray) -> dict[str, object]:
    """Networks of Keras 2 that return a map, where it is above a limit, and a value a class: by key, and in a list."""
    import tf_keras

    layers = tf_keras.layers
    given = tf_keras.Input(images.shape[:1:-1] + images.shape[1:2])
    features = layers.Conv2D(5, 3, strides=2, name="features")(given)
    above = tf.cast(features > 0.1, tf.int32)
    scores = layers.Dense(3, activation="softmax", name="scores")(layers.GlobalAveragePooling2D()(features))
    answers = tf_keras.Model(given, [above, features, scores])(images.transpose(0, 2, 3, 1))
    np.savez(folder / "answers.npz", images=images, **dict(zip(("above", "map", "scores"), answers, strict=True)))
    networks = {
        "keys.h5": tf_keras.Model(given, {"map": features, "above": above, "scores": scores}),
        "keys.keras": tf_keras.Model(given, {"map": features, "above": above, "scores": scores}),
        "listed.h5": tf_keras.Model(given, [above, features, scores]),
    }
    found: dict[str, object] = {}
    options = KerasReaderOptions(mean=(0, 0, 0), std=(1, 1, 1))
    for name, network in networks.items():
        network.save(folder / name)
        state = read(folder / name, options)
        (kept := folder / f"{name}-kept").mkdir()
        state.foreign.save(kept)
        gaps = [
            [float(np.abs(one - other).max()) for one, other in zip(model.outputs(images), answers, strict=True)]
            for model in (state.foreign, load_saved_model(kept))
        ]
        found[name] = [type(state.foreign).__name__, state.task.name, list(state.output_names), gaps]
    chosen = read(folder / "keys.h5", options.model_copy(update={"output": "scores"}))
    logits = chosen.foreign.outputs(images)[0]
    soft = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found["chosen"] = [chosen.task.name, len(chosen.classes), float(np.abs(soft - answers[2]).max())]
    found["only map"] = list(read(folder / "listed.h5", options.model_copy(update={"output": "features"})).output_names)
    try:
        read(folder / "keys.h5", options.model_copy(update={"output": "score"}))
    except CheckpointError as error:
        found["wrong"] = str(error)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
