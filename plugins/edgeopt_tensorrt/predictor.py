"""Opens a bundle: its engine on a GPU, or the ONNX file behind it in ONNX Runtime where there is none."""

from __future__ import annotations

import importlib
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.export.predictor import FilePredictor, layout_of, pixels_or_values
from edgeopt.plugins import ExportError, TensorInfo, as_outputs
from edgeopt_onnx.predictor import OnnxPredictor
from edgeopt_tensorrt.build_engine import ENGINE_FILE, ONNX_FILE
from edgeopt_tensorrt.bundle import PLUGIN, read_bundle
from edgeopt_tensorrt.gpu import can_run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Outputs, Pixels


def open_bundle(path: Path, module: str, threads: int) -> FilePredictor:
    """Opens the engine with `module`, `tensorrt` or `tensorrt_rtx`, where the bundle has one and it can run here.

    Everywhere else the ONNX file is opened in ONNX Runtime with so many `threads`: it gives the same answers, but its
    speed says nothing of the engine's.

    Raises `ValueError` when the file is damaged, is no bundle, or holds what its runtime cannot open, and `ExportError`
    when it has an operator that TensorRT alone knows, and TensorRT, a GPU or the engine is not here.
    """
    members = read_bundle(path)
    if ENGINE_FILE in members and can_run(module):
        return EnginePredictor(members[ENGINE_FILE], importlib.import_module(module))
    files = {name: content for name, content in members.items() if name.startswith(ONNX_FILE)}
    if ONNX_FILE not in files:
        raise ValueError(f"{path} is not a bundle of edgeopt: it has no {ONNX_FILE}")
    if PLUGIN.encode() in files[ONNX_FILE]:  # names stand in the file as they are
        raise ExportError(
            f"{path} ends in {PLUGIN}, which no runtime has but TensorRT, and its engine cannot run here",
            hint="run build.sh of the bundle on the device; one that ends at its outputs is opened in ONNX Runtime",
        )
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return OnnxPredictor(Path(folder) / ONNX_FILE, threads=threads)


class EnginePredictor(FilePredictor):
    """An engine of TensorRT, or of TensorRT for RTX, on the first GPU; PyTorch holds its buffers.

    Source: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/python-api-docs.html
    """

    def __init__(self, plan: bytes, tensorrt: Any, *, device: str = "cuda") -> None:
        """Opens a plan with the module that built it.

        Raises `ValueError` when the plan is of another version or for another kind of GPU, or when PyTorch cannot use
        the GPU.
        """
        import torch  # heavy, and not needed where ONNX Runtime stands in

        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                "this PyTorch was built without CUDA, and holds the engine's buffers: install one with CUDA"
            )
        self._torch, self._device = torch, device
        tensorrt.init_libnvinfer_plugins(None, "")  # an engine may have one, which is looked up when it is opened
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise ValueError("the engine is damaged, or was built by another version or for another GPU")
        self._context = self._engine.create_execution_context()
        self._stream = torch.cuda.Stream() if device == "cuda" else None  # type: ignore[no-untyped-call]  # as torch has it
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        modes = {name: self._engine.get_tensor_mode(name) for name in names}
        (given,) = (name for name, mode in modes.items() if mode == tensorrt.TensorIOMode.INPUT)
        returned = [name for name, mode in modes.items() if mode == tensorrt.TensorIOMode.OUTPUT]
        smallest, _, largest = self._engine.get_tensor_profile_shape(given, 0)
        self._smallest_batch = smallest[0]
        self.input_info = pixels_or_values(self._info(tensorrt, given, largest[0]))
        self.output_infos = tuple(self._info(tensorrt, name, largest[0]) for name in returned)

    def _info(self, tensorrt: Any, name: str, batch: int) -> TensorInfo:
        dtype = np.dtype(tensorrt.nptype(self._engine.get_tensor_dtype(name))).name
        shape = (batch, *tuple(self._engine.get_tensor_shape(name))[1:])
        return TensorInfo(name, dtype, shape, layout_of(len(shape)))

    def run(self, piece: NDArray[np.float32] | Pixels) -> Outputs:
        torch, count = self._torch, len(piece)
        missing = max(self._smallest_batch - count, 0)  # an engine for batches of a fixed size takes no smaller one
        piece = np.concatenate([piece, np.zeros((missing, *piece.shape[1:]), piece.dtype)])
        with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            given = torch.from_numpy(np.ascontiguousarray(piece)).to(self._device)
            self._context.set_input_shape(self.input_info.name, tuple(given.shape))
            self._context.set_tensor_address(self.input_info.name, given.data_ptr())
            returned = []
            for info in self.output_infos:
                shape = tuple(self._context.get_tensor_shape(info.name))
                returned.append(torch.empty(shape, dtype=getattr(torch, info.dtype), device=self._device))
                self._context.set_tensor_address(info.name, returned[-1].data_ptr())
            if not self._context.execute_async_v3(0 if self._stream is None else self._stream.cuda_stream):
                raise RuntimeError("TensorRT could not run the engine; its own messages are above")
            if self._stream is not None:
                self._stream.synchronize()
        return as_outputs([each[:count].cpu().numpy() for each in returned])

    def close(self) -> None:
        """Free the GPU's memory; the context before the engine, the engine before the runtime."""
        del self._context, self._engine, self._runtime
