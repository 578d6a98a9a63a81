"""The numerics of ExecuTorch's XNNPACK backend, as a torchao quantizer."""

from __future__ import annotations

from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)


def build_xnnpack(*, per_channel: bool, qat: bool) -> XNNPACKQuantizer:
    """Static int8 for every layer that XNNPACK runs in integers: symmetric weights, affine activations.

    `per_channel` gives each output channel of a weight a scale of its own. `qat` chooses observers that can be trained with.
    Source: https://docs.pytorch.org/executorch/stable/backends/xnnpack/xnnpack-quantization.html
    """
    return XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=per_channel, is_qat=qat))


def build_xnnpack_dynamic() -> XNNPACKQuantizer:
    """Int8 weights with a scale for each output channel, and activations quantized by the range that they have at run time."""
    return XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True))
