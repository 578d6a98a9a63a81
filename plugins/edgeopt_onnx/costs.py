"""What operators cost in ONNX Runtime on x86, in float32 and in int8, as `python -m edgeopt_onnx.measure_costs` measured it."""

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


class Cost(NamedTuple):
    """Nanoseconds of one call, and of each unit of work: a multiplication of a layer, an element of anything else."""

    call: int
    unit: float

    def of(self, work: float) -> int:
        """Nanoseconds of one call with so much work."""
        return round(self.call + self.unit * work)


COSTS: Mapping[Kind, tuple[Cost, Cost]] = {
    "pointwise": (Cost(call=8028, unit=0.0151), Cost(call=15370, unit=0.0039)),
    "dense": (Cost(call=7318, unit=0.0168), Cost(call=30828, unit=0.0039)),
    "depthwise": (Cost(call=7932, unit=0.0416), Cost(call=9279, unit=0.0824)),
    "narrow": (Cost(call=30995, unit=0.0167), Cost(call=168343, unit=0.0158)),
    "fully-connected": (Cost(call=2142, unit=0.1807), Cost(call=13351, unit=0.0534)),
    "binary": (Cost(call=0, unit=0.2259), Cost(call=6225, unit=0.7473)),
    "clip": (Cost(call=574, unit=0.0063), Cost(call=6208, unit=0.0)),
    "pool": (Cost(call=549, unit=0.0), Cost(call=1730, unit=0.0)),
    "conversion": (Cost(call=20904, unit=0.7298), Cost(call=20904, unit=0.7298)),
}
"""In float32 and in int8, one thread, ONNX Runtime 1.31 on a Xeon with AVX-512 and VNNI. A conversion is one way."""
