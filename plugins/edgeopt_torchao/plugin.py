"""Declares the passes `ptq` and `qat`, and the probes `bits` and `quantization`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from edgeopt.networks.bits import FLOAT_BITS
from edgeopt.plugins import (
    Bits,
    Form,
    Levels,
    ModelState,
    Options,
    PassContext,
    PassPlugin,
    Probe,
    ProbePlugin,
    hookimpl,
)
from edgeopt_distillation.options import TAUGHT_LIBRARIES
from edgeopt_torchao.bits.allocated import fingerprint_allocation
from edgeopt_torchao.options import BitOptions, BitsProbeOptions, PtqOptions, QatOptions

if TYPE_CHECKING:
    from torch import Tensor

    from edgeopt.plugins import ProbedNetwork


def ptq(state: ModelState, options: PtqOptions, context: PassContext) -> ModelState:
    """Quantizes after training, from the calibration split; see `edgeopt_torchao.ptq`."""
    from edgeopt_torchao.ptq import quantize  # torch and torchao are heavy

    return quantize(state, options, context)


def qat(state: ModelState, options: QatOptions, context: PassContext) -> ModelState:
    """Trains with the quantization in the loop; see `edgeopt_torchao.qat`."""
    from edgeopt_torchao.qat import train_quantized  # torch, torchao and Lightning are heavy

    return train_quantized(state, options, context)


def bits(network: ProbedNetwork, calibration: Callable[[], Iterable[Tensor]], options: BitsProbeOptions) -> Probe:
    """Rounds a layer's weight and what enters it to few bits; see `edgeopt_torchao.bits.probes`."""
    from edgeopt_torchao.bits.probes import BitsProbe  # torch is heavy

    return BitsProbe(network, calibration(), options.inputs)


def quantization(
    network: ProbedNetwork,
    calibration: Callable[[], Iterable[Tensor]],
    options: Options,  # noqa: ARG001 - there are none
) -> Probe:
    """Rounds a layer's weight and what enters it to 8 bits; see `edgeopt_torchao.bits.probes`."""
    from edgeopt_torchao.bits.probes import BitsProbe  # torch is heavy

    return BitsProbe(network, calibration())


@hookimpl
def edgeopt_probes() -> Iterator[ProbePlugin]:
    """The probes of this package."""
    yield ProbePlugin(
        "bits",
        "Bits of a layer's weight and of what enters it.",
        BitsProbeOptions,
        prepare=bits,
        levels=Levels((8, 6, 4), mildest=8, harshest=2, untouched=FLOAT_BITS, whole=True),
        libraries=TAUGHT_LIBRARIES,
        requires=("torch",),
        install="edgeopt[vision]",
    )
    yield ProbePlugin(
        "quantization",
        "A layer in int8 instead of float: its weight and what enters it.",
        Options,
        prepare=quantization,
        levels=Levels((8,), mildest=8, harshest=8, untouched=FLOAT_BITS, whole=True),
        libraries=TAUGHT_LIBRARIES,
        requires=("torch",),
        install="edgeopt[vision]",
    )


def bits_asked(options: BitOptions) -> Bits:
    """The bits of the layers that the options do not name; a budget's choice of weight bits is not known yet."""
    return Bits(Bits.weights if options.has_budget else options.weight_bits, options.activation_bits)


@hookimpl
def edgeopt_passes() -> Iterator[PassPlugin]:
    """The passes of this package."""
    yield PassPlugin(
        "ptq",
        "Quantizes after training: static ranges from the calibration split.",
        PtqOptions,
        apply=ptq,
        trains=False,
        produces=Form.PROGRAM,
        fingerprint=fingerprint_allocation,
        bits=bits_asked,
        keeps=("zeros",),
        libraries=TAUGHT_LIBRARIES,
        requires=("torchao",),
        install="edgeopt[vision]",
    )
    yield PassPlugin(
        "qat",
        "Trains on with rounded weights and activations, then quantizes.",
        QatOptions,
        apply=qat,
        produces=Form.PROGRAM,
        fingerprint=fingerprint_allocation,
        bits=bits_asked,
        leaves_out=("mosaic",),
        libraries=TAUGHT_LIBRARIES,
        requires=("torchao", "lightning"),
        install="edgeopt[vision]",
    )
