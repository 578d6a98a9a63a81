"""Run an IR file in OpenVINO on the processor: a NumPy batch in, its outputs out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino

from edgeopt.export.predictor import OpenFilePredictor, layout_of, pixels_or_values
from edgeopt.plugins import TensorInfo, usable_cores
from edgeopt_openvino.on_device import OpenFile, open_file


class OpenVinoPredictor(OpenFilePredictor):
    """An `.xml` file with its `.bin`, opened in OpenVINO on the processor."""

    _file: OpenFile

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        """Open a file of one input, with `threads` within a call; by default as many as this process may use.

        Raises `ValueError` where the weights are not beside it or are those of another file, where OpenVINO cannot open
        it, for the reason that the message repeats, and where it has several inputs.
        """
        self._file = open_file(path, threads or usable_cores())
        opened = self._file.model
        if len(opened.inputs) != 1:
            names = ", ".join(each.any_name for each in opened.inputs)
            raise ValueError(f"{path} has {len(opened.inputs)} inputs, not one: {names}")
        self.input_info = pixels_or_values(_tensor_info(opened.inputs[0], "NCHW"))
        self.output_infos = tuple(map(_tensor_info, opened.outputs))


def _tensor_info(port: openvino.Output, layout: str | None = None) -> TensorInfo:
    shape = tuple("batch" if size.is_dynamic else int(size.get_length()) for size in port.get_partial_shape())
    name = port.any_name if port.names else port.node.friendly_name
    return TensorInfo(name, np.dtype(port.element_type.to_dtype()).name, shape, layout or layout_of(len(shape)))
