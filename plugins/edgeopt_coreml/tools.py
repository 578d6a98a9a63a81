"""coremltools, imported without what else it looks for; and whether Core ML is on this machine."""

from __future__ import annotations

import platform
import sys

from edgeopt.export.predictor import quiet
from edgeopt.plugins import without_packages
from edgeopt_coreml.options import SYSTEMS

_SOUGHT = ("tensorflow", "sklearn", "xgboost", "executorch", "torchao", "torchaudio", "torchvision", "transformers")

# of other front ends, where they are installed: with them its import takes ten times as long, and TensorFlow would come
# to stand beside torch
with quiet(), without_packages(*_SOUGHT):
    import coremltools as coremltools  # noqa: PLC0414 - for the other modules of this package


def not_run(version: int) -> str:
    """Why this machine cannot run a file of a `version` of the format; empty where it can."""
    if sys.platform != "darwin":
        return "Core ML is a part of macOS and iOS, and this machine has neither"
    here, (target, needed) = platform.mac_ver()[0], SYSTEMS[version]
    if int(here.partition(".")[0]) < needed:
        return f"the file is for {target} and macOS {needed} or later, and this is macOS {here}"
    return ""
