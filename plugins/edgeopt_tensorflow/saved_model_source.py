"""Opens the folders of SavedModels of anybody: which signature is called, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeopt.plugins import CheckpointError, Preprocessing, first_line
from edgeopt_tensorflow.many_outputs import kept
from edgeopt_tensorflow.model import SavedModel, SavedModelNotes, given_by
from edgeopt_tensorflow.options import Scale
from edgeopt_tensorflow.runtime import tf
from edgeopt_tensorflow.saved_model_check import SAVE_AGAIN, require_computation
from edgeopt_tensorflow.scaling import rescaling

Shape = tuple[int, int, int]
"""Of an image: (height, width, channels)."""
ONE_INPUT = "edgeopt trains models of one image input and one output, and converts those of any outputs and one input"


def open_saved_model(
    path: Path, preprocessing: Preprocessing, scale: Scale, shape: Shape, wanted: str | None = None
) -> SavedModel:
    """A SavedModel that answers images normalized by `preprocessing`; a classifier's probabilities become logits.

    Raises `CheckpointError` for a damaged folder, dangerous operators, and a signature of another shape.
    """
    signature = signature_of(path, wanted)
    name, output = signature.input, signature.outputs[0]
    batch, *own = spec_shape = signature.spec.shape
    height, width, channels = shape
    if any(side not in (None, chosen) for side, chosen in zip(own, shape, strict=True)):
        raise CheckpointError(
            f"{path}: its input {name} is {tuple(spec_shape)}, not images (n, {height}, {width}, {channels})",
            hint=ONE_INPUT,
        )
    change = rescaling(preprocessing, scale)
    notes = SavedModelNotes(signature.name, name, output, batch, change.scale, change.offset, "logits")
    if not signature.is_of_a_classifier:
        return SavedModel(path, replace(notes, outputs=signature.outputs))
    model = SavedModel(path, notes)
    images = np.random.default_rng(0).normal(size=(batch or 4, channels, height, width)).astype(np.float32)
    return SavedModel(path, replace(notes, gives=given_by(model.logits(images))))


@dataclass(frozen=True)
class Signature:
    """The signature to call: its name, its input's name and shape, and its outputs' names."""

    name: str
    input: str
    spec: tf.TensorSpec
    outputs: tuple[str, ...]
    is_of_a_classifier: bool


def signature_of(path: Path, wanted: str | None) -> Signature:
    """The signature of a folder to call, with the output that is `wanted` alone, or with all of them.

    Raises `CheckpointError` for a damaged folder, dangerous operators, and another input than images.
    """
    require_computation(path)
    try:
        loaded = tf.saved_model.load(str(path))
        signatures = dict(loaded.signatures)
    except Exception as error:  # TensorFlow raises many types
        raise CheckpointError(f"{path} cannot be read as a SavedModel: {first_line(error)}", hint=SAVE_AGAIN) from error
    if not signatures:
        raise CheckpointError(f"{path}: has no signature", hint=SAVE_AGAIN)
    name = "serving_default" if "serving_default" in signatures else sorted(signatures)[0]
    given = signatures[name].structured_input_signature[1]
    returned = signatures[name].structured_outputs
    if len(given) != 1:
        listed = ", ".join(sorted(given))
        raise CheckpointError(f"{path}: signature {name!r} has {len(given)} inputs: {listed}", hint=ONE_INPUT)
    ((input_name, spec),) = given.items()
    if spec.dtype != tf.float32 or spec.shape.rank != 4:
        raise CheckpointError(
            f"{path}: its input {input_name} is {spec.dtype.name} {spec.shape}, not float32 images", hint=ONE_INPUT
        )
    outputs = kept(sorted(returned), wanted, path)
    classifies = len(outputs) == 1 and returned[outputs[0]].shape.rank in (None, 2)
    return Signature(name, input_name, spec, outputs, classifies)
