"""What the answers of files are held to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.tap import TapRequest
from edgeopt.plugins.use import Use
from edgeopt.progress import Silent
from edgeopt.testing.values import ArraySplit
from edgeopt.types import ModelState

if TYPE_CHECKING:
    from edgeopt.arrays import Outputs, Pixels

NEIGHBOURS = 4
"""Images in a call, to see whether one's answer depends on the others."""
ROUNDING = 1e-4  # of an output's range: kernels for many images add in another order than those for one


def filled(images: Pixels, count: int | None) -> Pixels:
    """The images, repeated or cut to `count` of them, where that is given."""
    return images if count is None else images[np.arange(count) % len(images)]


def require_shown(use: Use[ExporterPlugin], state: ModelState, path: Path) -> None:
    """Asserts that `tap` shows most inner values of an int8 file, and that looking changes no answer."""
    from edgeopt.why.worker import look_at  # torch

    shape = (NEIGHBOURS, *state.preprocessing.shape)
    noise = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    folder = path.parent / "tapped"
    folder.mkdir()
    images = ArraySplit(noise, np.zeros(NEIGHBOURS, dtype=np.int64))
    found = look_at(use.plugin, TapRequest(path, state, use.options, (), 1, folder), images, NEIGHBOURS, Silent())
    signal = sum(each.noise.signal for each in found.outputs)
    spread = found.tap_changes / (signal / (NEIGHBOURS * len(state.classes))) ** 0.5
    assert spread <= ROUNDING, f"tap() shows another file: its outputs differ by {found.tap_changes:.3g}"
    assert len(found.unseen) <= len(found.layers) / 2, f"tap() shows no value of {', '.join(found.unseen)}"


def require_close(outputs: Outputs, expected: Outputs, whole: Outputs, tolerance: float) -> None:
    """Asserts that each output differs by at most `tolerance` of the range of `whole`."""
    assert len(outputs) == len(expected), f"the file gives {len(outputs)} outputs, its program {len(expected)}"
    for place, (own, other, all_values) in enumerate(zip(outputs, expected, whole, strict=True)):
        assert own.shape == other.shape, f"output {place} is {own.shape}, the program's {other.shape}"
        share = float(np.abs(own - other).max()) / float(np.ptp(all_values))
        assert share <= tolerance, f"output {place} differs from the program's by {share:.3g} of its range"
