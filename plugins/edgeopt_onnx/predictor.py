"""Run an ONNX file in ONNX Runtime: a NumPy batch in, its outputs out."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from edgeopt.export.predictor import OpenFilePredictor, layout_of, pixels_or_values
from edgeopt.plugins import TensorInfo, usable_cores
from edgeopt_onnx.on_device import OpenFile

_DTYPES = {"float": "float32", "double": "float64"}  # ONNX's names that NumPy spells differently


class OnnxPredictor(OpenFilePredictor):
    """An ONNX file opened in ONNX Runtime on the processor."""

    _file: OpenFile

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        """Open a file.

        Args:
            path: an `.onnx` file of one input, float32 images or uint8 pixels, and one or several outputs.
            threads: threads within one operator; the processors this process may use by default.

        Raises:
            ValueError: ONNX Runtime cannot open the file, for the reason that the message repeats; the file has several
                inputs.

        """
        self.threads = threads or usable_cores()
        try:
            self._file = OpenFile(path, self.threads)
        except Exception as error:  # onnxruntime's errors share no base class below Exception
            raise ValueError(f"ONNX Runtime cannot open {path}: {error}") from error
        self.input_info = pixels_or_values(_tensor_info(_only_input(path, self._file.session), "NCHW"))
        self.output_infos = tuple(
            _tensor_info(each, layout_of(len(each.shape))) for each in self._file.session.get_outputs()
        )

    def metadata(self, key: str) -> str | None:
        """Return a text of the file's metadata, for instance the card's; None where the file has none of that name."""
        text: str | None = self._file.session.get_modelmeta().custom_metadata_map.get(key)
        return text


def _only_input(path: Path, session: onnxruntime.InferenceSession) -> onnxruntime.NodeArg:
    given = session.get_inputs()
    if len(given) != 1:
        raise ValueError(f"{path} has {len(given)} inputs, not one: {', '.join(each.name for each in given)}")
    return given[0]


def _tensor_info(argument: onnxruntime.NodeArg, layout: str) -> TensorInfo:
    dtype = argument.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else "batch" for size in argument.shape)
    return TensorInfo(name=argument.name, dtype=_DTYPES.get(dtype, dtype), shape=shape, layout=layout)
