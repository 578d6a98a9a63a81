"""Declares the passes `ptq` and `qat`."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.hookspecs import hookimpl
from edgeopt.plugin import PassContext, PassPlugin
from edgeopt.types import Form, ModelState
from edgeopt_torchao.options import PtqOptions, QatOptions


def ptq(state: ModelState, options: PtqOptions, context: PassContext) -> ModelState:
    """Quantizes after training, from the calibration split; see `edgeopt_torchao.ptq`."""
    from edgeopt_torchao.ptq import quantize  # torch and torchao are heavy

    return quantize(state, options, context)


def qat(state: ModelState, options: QatOptions, context: PassContext) -> ModelState:
    """Trains with the quantization in the loop; see `edgeopt_torchao.qat`."""
    from edgeopt_torchao.qat import train_quantized  # torch, torchao and Lightning are heavy

    return train_quantized(state, options, context)


@hookimpl
def edgeopt_passes() -> Iterator[PassPlugin]:
    """The passes of this package."""
    yield PassPlugin(
        "ptq",
        "Quantizes after training: static ranges from the calibration split.",
        PtqOptions,
        apply=ptq,
        produces=Form.PROGRAM,
        keeps=("zeros",),
        requires=("torchao",),
        install="edgeopt[vision]",
    )
    yield PassPlugin(
        "qat",
        "Trains on with rounded weights and activations, then quantizes.",
        QatOptions,
        apply=qat,
        produces=Form.PROGRAM,
        requires=("torchao", "lightning"),
        install="edgeopt[vision]",
    )
