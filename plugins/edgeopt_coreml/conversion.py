"""From a program to a network of Core ML, by coremltools' front end for exported programs.

It takes the quantize and dequantize nodes of a program as they are: Core ML's own operators round by the same scales
and zero points.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.export.predictor import quiet
from edgeopt.export.refusals import not_converted
from edgeopt.plugins import TensorInfo, first_line
from edgeopt_coreml.operators import require_converted
from edgeopt_coreml.rewrites.prepared import prepare
from edgeopt_coreml.tools import coremltools

if TYPE_CHECKING:
    from edgeopt.plugins import ModelState
    from edgeopt_coreml.options import DeploymentTarget


def convert(
    state: ModelState,
    tensors: tuple[TensorInfo, tuple[TensorInfo, ...]],
    package: Path,
    target: DeploymentTarget,
    arithmetic: str,
    *,
    has_int8_weights: bool,
) -> tuple[Any, dict[str, str]]:
    """The message of the model, as coremltools has it, with such an input and outputs, and the module of each layer by
    the name that its weight has in the network, or begins with. The constants are written into `package`. With the
    `arithmetic` "float16" floats are that but for input and outputs, with `has_int8_weights` the weights of layers are
    rounded first.

    Raises `ExportError` naming what coremltools does not convert.
    """
    given, returned = tensors
    with quiet():
        prepared = prepare(state, is_half=arithmetic == "float16", has_int8_weights=has_int8_weights)
        require_converted(prepared)
        try:
            model = coremltools.convert(
                prepared.program,
                inputs=[_input(given)],
                outputs=[coremltools.TensorType(name=each.name, dtype=np.dtype(each.dtype).type) for each in returned],
                minimum_deployment_target=getattr(coremltools.target, target),
                compute_precision=getattr(coremltools.precision, arithmetic.upper()),
                package_dir=str(package),
                skip_model_load=True,
            )
        except Exception as error:  # coremltools raises many types for arguments that it does not take
            raise not_converted(f"coremltools cannot convert this model: {first_line(error)}") from error
    return model.get_spec(), prepared.modules


def _input(given: TensorInfo) -> Any:
    if given.holds != "pixels":
        return coremltools.TensorType(name=given.name, shape=given.shape, dtype=np.float32)
    batch, height, width, channels = given.shape
    colours = coremltools.colorlayout.RGB if channels == 3 else coremltools.colorlayout.GRAYSCALE
    return coremltools.ImageType(name=given.name, shape=(batch, channels, height, width), color_layout=colours)
