"""The probe `sparsity`: a share of one layer's weights set to zero, as `prune-unstructured` chooses them."""

from __future__ import annotations

import torch

from edgeopt.plugins import Change, ProbedLayer, ProbedNetwork
from edgeopt_pruning.unstructured.masks import choose_zeros


class SparsityProbe:
    """Zeros in the weights of two-dimensional convolutions and linear layers.

    Layers that compute their weight anew before they use it are left out, because `prune-unstructured` leaves them
    dense.
    """

    def __init__(self, network: ProbedNetwork) -> None:
        self._layers = {name: layer for name, layer in network.layers.items() if _is_prunable(layer)}
        self.layers = tuple(self._layers)

    def change(self, layer: str, level: float) -> Change:
        """The layer's weight with the smallest share of `level` at zero."""
        weight = self._layers[layer].weight
        (zeros,) = choose_zeros([weight], [torch.zeros_like(weight, dtype=torch.bool)], level, "layer")
        return Change(weight.masked_fill(zeros, 0.0))


def _is_prunable(layer: ProbedLayer) -> bool:
    return layer.is_parameter and layer.kind != "transposed convolution" and layer.weight.dim() in (2, 4)
