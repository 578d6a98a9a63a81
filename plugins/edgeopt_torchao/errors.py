"""What can go wrong between a float module and a quantized program, each with what to do about it."""

from __future__ import annotations


class QuantizationError(Exception):
    """Base of this package's errors; `message` says what is wrong, `hint` what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}\n  hint: {hint}")
        self.message = message
        self.hint = hint


class CaptureError(QuantizationError):
    """The model cannot be exported, or the captured program computes something else."""


class NothingQuantizedError(QuantizationError):
    """A quantizer was asked for and left every layer in float."""


class NothingFrozenError(QuantizationError):
    """A freeze was asked for and there was nothing, or nothing more, to freeze."""


class FunctionChangedError(QuantizationError):
    """A step that has to keep the function did not."""


class UnsupportedFakeQuantizerError(QuantizationError):
    """The quantizer trains with a kind of fake quantizer that this package does not know."""
