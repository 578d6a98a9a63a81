"""Which layers of a program are quantized, and which stayed in float."""

from __future__ import annotations

from dataclasses import dataclass

from torch.export import ExportedProgram

from edgeopt.networks.bits import layer_bits
from edgeopt.plugins import NothingChangedError


@dataclass(frozen=True)
class LayerCounts:
    """Convolution and linear layers of a program, by what is quantized.

    `quantized` layers have integer weights and integer inputs; `float_layers` names the rest, which may have one of the
    two.
    """

    layers: int
    quantized_weights: int
    quantized_activations: int
    quantized: int
    float_layers: tuple[str, ...]


def count_quantized(program: ExportedProgram) -> LayerCounts:
    """Count the convolution and linear layers of a converted program, folded or not.

    Raises `NothingChangedError` when it has such layers and none has a quantized weight, or when it has none at all.
    """
    layers = layer_bits(program)
    weights = [layer.weights is not None for layer in layers]
    activations = [layer.activations is not None for layer in layers]
    if not any(weights):
        raise NothingChangedError(
            f"none of the {len(layers)} convolution and linear layers is quantized"
            if layers
            else "the program has no convolution or linear layer",
            hint="use a quantizer that covers the layers of this model, or leave the quantizing pass out",
        )
    both = [weight and activation for weight, activation in zip(weights, activations, strict=True)]
    in_float = tuple(layer.name for layer, quantized in zip(layers, both, strict=True) if not quantized)
    return LayerCounts(len(layers), sum(weights), sum(activations), sum(both), in_float)
