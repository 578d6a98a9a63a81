"""Whether this machine can run an engine. Light: neither torch nor TensorRT is imported to find out."""

from __future__ import annotations

import ctypes
import sys
from importlib.util import find_spec


def can_run(module: str) -> bool:
    """Whether the module, `tensorrt` or `tensorrt_rtx`, is installed and a GPU is there for it."""
    return find_spec(module) is not None and gpu_count() > 0


def gpu_count() -> int:
    """GPUs that NVIDIA's driver offers; 0 without a driver."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value
