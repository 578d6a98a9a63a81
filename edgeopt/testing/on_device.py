"""What the files of an exporter must keep on devices."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.use import Use
from edgeopt.testing.contracts import PluginContract, imports_of
from edgeopt.testing.values import ArraySplit
from edgeopt.types import ExportResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeopt.arrays import Pixels


class AnswersOnDevices(PluginContract):
    """The part of an exporter's contract that is about devices; `ExporterContract` has it."""

    fixed_batch: ClassVar[int | None] = None

    def test_it_answers_on_a_device_as_here(
        self,
        use: Use[ExporterPlugin],
        exported: tuple[Path, ExportResult],
        images: ArraySplit,
        feed: Callable[[Pixels], Any],
    ) -> None:
        """Bit for bit, by modules that go there without the rest of edgeopt and of the plugin."""
        opener = use.plugin.on_device
        if opener is None:
            pytest.skip("its files run on this machine alone")
        own = {module.partition(".")[0] for module in (*opener.modules, "edgeopt")}
        for module in opener.modules:
            needed = {name for name in imports_of(module) if name.partition(".")[0] in own}
            assert needed <= set(opener.modules), f"{module} imports {needed} besides what goes to a device"
        batch = feed(images.pixels(range(self.fixed_batch or 1)))
        with use.plugin.opened(exported[0], 1) as predictor:
            here = [each.copy() for each in predictor.predict(batch)]
        file = import_module(opener.modules[0]).open_file(exported[0], 1)
        try:
            there = file.predict(batch)
            assert len(there) == len(here), "the same file gives another number of outputs there"
            assert all(map(np.array_equal, there, here)), "the same file answers otherwise there"
        finally:
            file.close()
