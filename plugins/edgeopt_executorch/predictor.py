"""Run a `.pte` file in the ExecuTorch runtime: a NumPy batch in, its outputs out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.export.predictor import OpenFilePredictor, layout_of, pixels_or_values
from edgeopt.plugins import ONLY_LOGITS, TensorInfo, usable_cores
from edgeopt_executorch.on_device import OpenFile
from edgeopt_executorch.options import CARD_METHOD

if TYPE_CHECKING:
    from executorch.extension.pybindings import _C


_DTYPES = {0: "uint8", 1: "int8", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 15: "bfloat16"}  # c10::ScalarType


class ExecuTorchPredictor(OpenFilePredictor):
    """A `.pte` file opened in the ExecuTorch runtime.

    The runtime's thread pool is one for the whole process: the last predictor that was opened sets its size.
    """

    _file: OpenFile

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        """Open a file.

        Args:
            path: a `.pte` file with a method `forward` of one input of images and its outputs.
            threads: size of the process's thread pool; the processors this process may use by default.

        Raises:
            ValueError: the runtime cannot load the file; the message says why in the runtime's own words.

        """
        self.threads = threads or usable_cores()
        self._file = OpenFile(path, self.threads)
        meta = self._file.method.method_meta()
        self.input_info = pixels_or_values(_tensor_info("input", "NCHW", meta.input_tensor_meta(0)))
        metas = [meta.output_tensor_meta(place) for place in range(meta.num_outputs())]
        self.output_infos = tuple(
            _tensor_info(name, layout_of(len(each.sizes())), each)
            for name, each in zip(self._output_names(len(metas)), metas, strict=True)
        )

    def _output_names(self, count: int) -> tuple[str, ...]:
        """The names of the outputs, which the format knows no place for: of several, by the card within."""
        if count == 1:
            return ONLY_LOGITS
        card = json.loads(self.constant(CARD_METHOD) or "{}")
        names = tuple(str(each["name"]) for each in card.get("outputs", ()))
        return names if len(names) == count else tuple(f"output_{place}" for place in range(count))

    def constant(self, method: str) -> str | None:
        """Return the text of a constant method, for instance the card's; None where the file has none of that name."""
        program = self._file.program
        methods = [program.get_method_name(index) for index in range(program.num_methods())]
        return str(program.load_method(method)([])[0]) if method in methods else None


def _tensor_info(name: str, layout: str, info: _C.TensorInfo) -> TensorInfo:
    dtype = _DTYPES.get(info.dtype(), f"type {info.dtype()}")
    return TensorInfo(name=name, dtype=dtype, shape=tuple(info.sizes()), layout=layout)
