"""The options of the model `mcu`. Light."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeopt.plugins import Options

Arch = Literal["ds_cnn", "mobilenet_v1_025", "person_detect"]


class McuOptions(Options):
    """Which small network."""

    arch: Arch = Field(
        "ds_cnn",
        description='"ds_cnn" (24 thousand parameters, for spectrograms and small images), "person_detect" (0.1 '
        'million) or "mobilenet_v1_025" (0.2 million)',
    )
