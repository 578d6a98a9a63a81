"""What an image costs in energy, as benchmarks have it and devices tell it.

This module goes to devices as it is: it imports the standard library alone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EnergyUse:
    """What an image takes beyond what the machine takes idling, in calls without a pause, mJ, and of which `images`.

    `idle_w` and `busy_w` are the mean powers, W, that it is the difference of, over `seconds` of calls. `method` names
    the meter.
    """

    mj_per_image: float
    idle_w: float
    busy_w: float
    seconds: float
    images: int
    method: str
