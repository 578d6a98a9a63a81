"""Opens ONNX Runtime's sessions: all of this project run on the processor, and report failures as exceptions alone."""

from __future__ import annotations

from pathlib import Path

import onnxruntime


def open_session(model: Path | bytes, *, threads: int = 1, **settings: object) -> onnxruntime.InferenceSession:
    """Open a model in ONNX Runtime, on the processor.

    Args:
        model: an `.onnx` file, or the bytes of one.
        threads: threads within one operator.
        settings: further attributes of `onnxruntime.SessionOptions`, by their names.

    Raises whatever ONNX Runtime raises for a model that it cannot open: its errors share no base class below Exception.

    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # failures reach the caller as exceptions
    for name, value in settings.items():
        setattr(options, name, value)
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
