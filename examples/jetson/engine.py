"""Opens a TensorRT engine with NumPy and JetPack alone: the GPU's memory is asked for from the CUDA runtime itself."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, Mapping

import numpy as np
from feed import Run, WrongFileError

CUDA_RUNTIMES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")
TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind


def open_engine(path: Path, threads: int) -> Run:
    """A function from the input of the engine to its outputs by name; a GPU has no use for `threads`.

    Source: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/python-api-docs.html

    Raises `WrongFileError` where TensorRT or CUDA is not here, or the engine was built elsewhere.
    """
    try:
        import tensorrt
    except ImportError as error:
        raise WrongFileError("TensorRT is not here: apt-get install python3-libnvinfer") from error
    return Engine(path, tensorrt, Cuda(_cuda_runtime()))


class Cuda:
    """The three functions of the CUDA runtime that feeding an engine takes; each error of theirs is raised."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def allocated(self, size: int) -> int:
        """The address of so many bytes of the GPU's memory."""
        address = ctypes.c_void_p()
        self._done("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(size))
        return int(address.value or 0)

    def to_device(self, address: int, values: np.ndarray) -> None:
        """Copies an array there, and waits for it."""
        self._copy(address, values.ctypes.data, values.nbytes, TO_DEVICE)

    def to_host(self, values: np.ndarray, address: int) -> None:
        """Copies into an array, once all that was begun on the GPU is done."""
        self._copy(values.ctypes.data, address, values.nbytes, TO_HOST)

    def _copy(self, target: int, source: int, size: int, kind: int) -> None:
        self._done("cudaMemcpy", ctypes.c_void_p(target), ctypes.c_void_p(source), ctypes.c_size_t(size), kind)

    def _done(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} failed with error {status} of CUDA")


class Engine:
    """An engine with memory for one image in, and for what it gives for that one."""

    def __init__(self, path: Path, tensorrt: Any, cuda: Cuda) -> None:
        self._cuda = cuda
        tensorrt.init_libnvinfer_plugins(None, "")  # an engine that ends at boxes has one
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise WrongFileError(f"{path} was built by another TensorRT or for another GPU: run build.sh here")
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        (given,) = [name for name in names if self._engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT]
        smallest, _, _ = self._engine.get_tensor_profile_shape(given, 0)
        if smallest[0] != 1:
            raise WrongFileError(f"{path} takes {smallest[0]} images at once; export it for one: batch = {{ min = 1 }}")
        self._context.set_input_shape(given, tuple(smallest))
        size = int(np.prod(smallest)) * np.dtype(tensorrt.nptype(self._engine.get_tensor_dtype(given))).itemsize
        self._given = cuda.allocated(size)
        self._context.set_tensor_address(given, self._given)
        self._answers = {
            name: np.empty(
                tuple(self._context.get_tensor_shape(name)), tensorrt.nptype(self._engine.get_tensor_dtype(name))
            )
            for name in names
            if name != given
        }
        self._returned = {name: cuda.allocated(answer.nbytes) for name, answer in self._answers.items()}
        for name, address in self._returned.items():
            self._context.set_tensor_address(name, address)

    def __call__(self, values: np.ndarray) -> Mapping[str, np.ndarray]:
        """The outputs by name for the input of one image."""
        self._cuda.to_device(self._given, values)
        if not self._context.execute_async_v3(0):
            raise RuntimeError("TensorRT could not run the engine; its own messages are above")
        for name, address in self._returned.items():
            self._cuda.to_host(self._answers[name], address)
        return {name: answer.copy() for name, answer in self._answers.items()}


def _cuda_runtime() -> ctypes.CDLL:
    for name in CUDA_RUNTIMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise WrongFileError(f"none of {', '.join(CUDA_RUNTIMES)} is here: JetPack's CUDA is not installed")
