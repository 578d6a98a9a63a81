"""Which versions matter to a result, said once: for keys, the lock, the report and the card."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from typing import Any

from edgeopt._version import __version__
from edgeopt.fingerprint import versions_of
from edgeopt.plugins.use import Use, references
from edgeopt.types import TORCH

#: NumPy computes and Pillow decodes in every run, whatever its plugins declare.
_ALWAYS = ("numpy", "pillow")


def versions_behind(uses: Iterable[Use[Any]], framework: str = "") -> dict[str, str]:
    """Versions of all that makes a result: Python, edgeopt, NumPy, Pillow, what the plugins of `uses` and of the
    plugins that their options refer to require or take where it is there, and torch where `framework` is torch.

    "none" stands for a distribution that is not installed.
    """
    direct = list(uses)
    plugins = [each.plugin for use in direct for each in (use, *references(use))]
    named = {name for plugin in plugins for name in (*plugin.requires, *plugin.optional)}
    frameworks = {TORCH} if framework == TORCH else set()
    return {
        "edgeopt": __version__,
        "python": platform.python_version(),
        **versions_of({*_ALWAYS, *frameworks, *named}),
    }
