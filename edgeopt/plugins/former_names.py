"""Where the modules went that edgeopt had before its rooms: whoever imports one is told the new name."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_FACE = "edgeopt.plugins"
FORMER: Mapping[str, str] = {
    "edgeopt.artifact": "edgeopt.export.make",
    "edgeopt.augment": "edgeopt.data.augment",
    "edgeopt.bits": "edgeopt.networks.bits",
    "edgeopt.checkpoints": "edgeopt.networks.checkpoints",
    "edgeopt.computed_weights": "edgeopt.networks.computed_weights",
    "edgeopt.device_input": "edgeopt.export.pixels_input",
    "edgeopt.evaluate": "edgeopt.measure.answers",
    "edgeopt.exporting": "edgeopt.export.predictor",
    "edgeopt.grouping": "edgeopt.data.groups",
    "edgeopt.hookspecs": _FACE,
    "edgeopt.layer_names": "edgeopt.networks.layer_names",
    "edgeopt.module_copies": "edgeopt.networks.copies",
    "edgeopt.modules": "edgeopt.networks.heads",
    "edgeopt.named_tensors": "edgeopt.networks.tensors",
    "edgeopt.pictures": "edgeopt.data.images",
    "edgeopt.plugin": _FACE,
    "edgeopt.program": "edgeopt.networks.capture",
    "edgeopt.registry": _FACE,
    "edgeopt.runner": "edgeopt",
    "edgeopt.settings": _FACE,
    "edgeopt.splits": "edgeopt.data.splits",
    "edgeopt.states": "edgeopt.networks.saved",
    "edgeopt.store": "edgeopt.files",
    "edgeopt.task": _FACE,
    "edgeopt.trial_files": "edgeopt.export.trial_files",
    "edgeopt.weights": "edgeopt.networks.weights_option",
}
"""Former modules, and where what they held is now."""


class _FormerNames(MetaPathFinder):
    """Finds nothing: it is asked last, and says where a former module's contents are."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the protocol's arguments
        target: ModuleType | None = None,  # noqa: ARG002 - as above
    ) -> ModuleSpec | None:
        if new := FORMER.get(fullname):
            # without its name, by which `from edgeopt import NAME` would take it for one that is merely not there
            raise ModuleNotFoundError(f"there is no module {fullname!r} any more: import from {new!r}")
        return None


def tell_former_names() -> None:
    """From now on, an import of a former module fails with the new name."""
    if not any(isinstance(finder, _FormerNames) for finder in sys.meta_path):
        sys.meta_path.append(_FormerNames())
