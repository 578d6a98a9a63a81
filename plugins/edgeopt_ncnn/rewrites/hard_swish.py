"""Layers of a network written as ncnn computes them faster, with the same result."""

from __future__ import annotations

from edgeopt_ncnn.graph import WEIGHTED, Graph

_ACTIVATION, _ARGUMENTS = 9, 10  # numbers of a layer's parameters
_HARD_SWISH = "6"


def fuse_hard_swish(graph: Graph) -> int:
    """Has layers compute the hard-swish behind them themselves, in place; returns how many.

    ncnn's layers can, and pnnx writes it as a layer of its own. A convolution in int8 then hands the next one integers,
    where it would write floats, read them, and round them.
    """
    fused = 0
    for activation in [each for each in graph.layers if each.type == "HardSwish"]:
        (given,) = activation.reads
        before = next(each for each in graph.layers if given in each.writes)
        if before.type not in WEIGHTED or len(graph.readers(given)) > 1 or before.number(_ACTIVATION):
            continue
        slope, shift = activation.parameters[0], activation.parameters[1]
        before.parameters[_ACTIVATION] = _HARD_SWISH
        before.set_array(_ARGUMENTS, slope, shift)
        before.writes = activation.writes
        graph.layers.remove(activation)
        fused += 1
    return fused
