"""From an ONNX file to TensorFlow, through onnx2tf: offline, quiet, and held against ONNX Runtime's answers."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from edgeopt.export.predictor import quiet
from edgeopt.export.refusals import OperatorPlace, unsupported
from edgeopt.plugins import ExportError, FunctionChangedError, ModelState, Problem, first_line
from edgeopt_onnx.session import open_session
from edgeopt_tensorflow.model import INPUT_NAME, keys_of
from edgeopt_tensorflow.onnx_reader import OnnxModel, apart, save_model
from edgeopt_tensorflow.onnx_tidy import renamed
from edgeopt_tensorflow.runtime import import_keras_2, tf

_TOLERANCE = 1e-3  # of the range of an output: TensorFlow's kernels add in another order
_MOST_OTHERS = 0.01  # share of integers that may be others, as the class of a place where two are as likely
_IMAGES = 4
_OPERATOR = re.compile(r"onnx2tf/ops/(\w+)\.py")  # in the trace that onnx2tf prints


@dataclass(frozen=True, eq=False)
class Converted:
    """A network that onnx2tf built, NHWC. `orders` are the axes of its outputs in the order that the file has."""

    network: Any
    orders: tuple[tuple[int, ...], ...]

    def traced(self, batch: int | None, shape: tuple[int, int, int]) -> Any:
        """A concrete function of one batch size, or of any: the outputs by `keys_of` of `input`, NHWC, whose images are
        of `shape` (height, width, channels).
        """
        spec = tf.TensorSpec([batch, *shape], tf.float32, name=INPUT_NAME)

        def serve(input: tf.Tensor) -> dict[str, tf.Tensor]:
            answers = _answers(self.network, input)
            ordered = [
                answer if order == tuple(range(len(order))) else tf.transpose(answer, order)
                for answer, order in zip(answers, self.orders, strict=True)
            ]
            return dict(zip(keys_of(len(ordered)), ordered, strict=True))

        return tf.function(serve, input_signature=[spec]).get_concrete_function()


def onnx_source(state: ModelState) -> OnnxModel:
    """The state's ONNX file. Raises `ExportError` where it has none, or a quantized one."""
    model = state.foreign
    if not isinstance(model, OnnxModel):
        raise ExportError(f"a {type(model).__name__} is no ONNX model")
    if state.precision != "float32":
        raise ExportError(
            "the ONNX file is quantized, and TensorFlow would compute its rounding in slow float operators",
            hint="convert the float model, and ask for an int8 file",
        )
    return model


def convert(source: OnnxModel, shape: tuple[int, int, int]) -> Converted:
    """The file's network in TensorFlow, compared on images of `shape` (height, width, channels).

    Raises `ExportError` for an operator that onnx2tf lacks, and `FunctionChangedError` when TensorFlow's answers differ
    from ONNX Runtime's.
    """
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "model.onnx"
        _simplify(source, copy)
        printed = io.StringIO()
        try:
            with quiet(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                network = _run(copy, Path(name) / "out", source)
        except (Exception, SystemExit) as error:  # onnx2tf ends the process where it cannot go on
            reason = _reason(error, printed.getvalue())
            if operators := _OPERATOR.findall(printed.getvalue()):
                raise unsupported("TensorFlow", [OperatorPlace(f"onnx.{operators[-1]}", "")], reason) from error
            raise ExportError(
                Problem(
                    f"onnx2tf cannot convert {source.name}: {reason}",
                    "convert it from the framework that it was made with",
                )
            ) from error
    return Converted(network, _orders(source, network, shape))


def _run(file: Path, folder: Path, source: OnnxModel) -> Any:
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # what onnx2tf builds networks of; it says so itself, too late
    tf_keras = import_keras_2()
    import onnx2tf
    from onnx2tf import onnx2tf as module

    tf_keras.backend.reset_uids()  # layers are named anew, so that the file does not tell of earlier conversions

    # it would fetch photographs to compare each layer with; any images do
    module.download_test_image_data = _noise
    return onnx2tf.convert(
        input_onnx_file_path=str(file),
        output_folder_path=str(folder),
        keep_nwc_or_nhwc_or_ndhwc_input_names=[onnx.load(file, load_external_data=False).graph.input[0].name]
        if source.layout == "NHWC"
        else None,
        not_use_onnxsim=True,
        disable_model_save=True,
        non_verbose=True,
        verbosity="error",
    )


def _simplify(source: OnnxModel, target: Path) -> None:
    """Folds constants with ONNX Runtime, as onnx2tf's own simplifier is a program that may be on the path or not.

    Names that TensorFlow cannot take are changed first.
    """
    tame = target.with_name("tame.onnx")
    save_model(renamed(source.proto), tame)
    open_session(
        tame,
        graph_optimization_level=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        optimized_model_filepath=str(target),
    )
    model = onnx.load(target)
    _pad_with_zeros(model)
    onnx.save(model, target)


def _pad_with_zeros(model: onnx.ModelProto) -> None:
    """Lets each MaxPool of values that are never negative pad with zeros, which does not change its result.

    onnx2tf pads with the lowest float: an int8 file would stretch its steps over that range, and LiteRT cannot open it.
    """
    graph = model.graph
    positive = {output for node in graph.node if node.op_type in ("Relu", "Sigmoid") for output in node.output}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        pads = next((each for each in node.attribute if each.name == "pads"), None)
        if node.op_type == "MaxPool" and node.input[0] in positive and pads is not None and len(pads.ints) == 4:
            top, left, bottom, right = pads.ints
            padded, sizes = f"{node.input[0]}_padded_for_{node.output[0]}", f"pads_for_{node.output[0]}"
            values = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
            graph.initializer.append(onnx.numpy_helper.from_array(values, sizes))
            nodes.append(onnx.helper.make_node("Pad", [node.input[0], sizes], [padded], name=padded))
            node.input[0] = padded
            node.attribute.remove(pads)
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _noise() -> Any:
    return np.random.default_rng(0).random((20, 128, 128, 3), dtype=np.float32)


def _answers(network: Any, images: Any) -> list[Any]:
    answer = network(images)
    return list(answer) if isinstance(answer, list | tuple) else [answer]


def _orders(source: OnnxModel, network: Any, shape: tuple[int, int, int]) -> tuple[tuple[int, ...], ...]:
    """The axes of the network's outputs in the order of the file's: onnx2tf moves channels to the end, of some outputs.

    Raises `FunctionChangedError` where no order of them gives what ONNX Runtime answers.
    """
    count, (height, width, channels) = source.batch or _IMAGES, shape
    images = np.random.default_rng(0).normal(size=(count, channels, height, width)).astype(np.float32)
    every = source.outputs(images)
    answers = [each.numpy() for each in _answers(network, tf.constant(images.transpose(0, 2, 3, 1)))]
    orders = []
    for name, expected, got in zip(source.output_names, every, answers, strict=True):
        possible = [(0, *order) for order in itertools.permutations(range(1, got.ndim))] or [(0,)]
        fitting = [order for order in possible if got.transpose(order).shape == expected.shape]
        difference, order = min(
            ((apart(expected, got.transpose(order)), order) for order in fitting), default=(math.inf, possible[0])
        )
        if not difference <= (_TOLERANCE if expected.dtype == np.float32 else _MOST_OTHERS):
            raise FunctionChangedError(
                f"onnx2tf changed the output {name!r} of {source.name} by {difference:.3g} of its range",
                hint="convert the model from the framework that it was made with",
            )
        orders.append(order)
    return tuple(orders)


def _reason(error: BaseException, printed: str) -> str:
    if not isinstance(error, SystemExit):
        return first_line(error)
    lines = [line.strip() for line in printed.splitlines() if "ERROR" in line]
    return lines[0] if lines else "it gave up without saying why"
