"""What operators cost in ONNX Runtime on x86, in float32 and in int8.

Measured by `python -m edgeopt_onnx.auto.measure`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal[
    "pointwise",
    "dense",
    "depthwise",
    "narrow",
    "fully-connected",
    "binary",
    "clip",
    "pool",
    "conversion",
]


class OperatorCost(NamedTuple):
    """Nanoseconds of one call, and of each unit of work: a multiplication of a layer, an element of anything else."""

    call: int
    unit: float

    def of(self, work: float) -> int:
        """Nanoseconds of one call with so much work."""
        return round(self.call + self.unit * work)


COSTS: Mapping[Kind, tuple[OperatorCost, OperatorCost]] = {
    "pointwise": (OperatorCost(call=8028, unit=0.0151), OperatorCost(call=15370, unit=0.0039)),
    "dense": (OperatorCost(call=7318, unit=0.0168), OperatorCost(call=30828, unit=0.0039)),
    "depthwise": (OperatorCost(call=7932, unit=0.0416), OperatorCost(call=9279, unit=0.0824)),
    "narrow": (OperatorCost(call=30995, unit=0.0167), OperatorCost(call=168343, unit=0.0158)),
    "fully-connected": (OperatorCost(call=2142, unit=0.1807), OperatorCost(call=13351, unit=0.0534)),
    "binary": (OperatorCost(call=0, unit=0.2259), OperatorCost(call=6225, unit=0.7473)),
    "clip": (OperatorCost(call=574, unit=0.0063), OperatorCost(call=6208, unit=0.0)),
    "pool": (OperatorCost(call=549, unit=0.0), OperatorCost(call=1730, unit=0.0)),
    "conversion": (OperatorCost(call=20904, unit=0.7298), OperatorCost(call=20904, unit=0.7298)),
}
"""The costs in float32 and in int8, with one thread of ONNX Runtime 1.31 on a Xeon with AVX-512 and VNNI.

A conversion costs the same in both, for one way.
"""
