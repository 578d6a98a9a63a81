"""Files that a pass writes and measures on the way, to know what a choice costs in its runtime."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from edgeopt.export.make import make_artifact
from edgeopt.measure.answers import feeder
from edgeopt.networks.capture import to_program
from edgeopt.plugins.contexts import PassContext
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.predictor import Predictor, close_predictor
from edgeopt.plugins.use import Use
from edgeopt.types import ModelState, Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Pixels

_ROUNDS, _CALLS, _WARMUP = 12, 5, 5


@dataclass(frozen=True)
class TrialFile:
    """A file that was opened, and one image as it takes it."""

    predictor: Predictor
    size_bytes: int
    image: NDArray[np.float32] | Pixels


class TrialFiles:
    """Writes files with the exporter `use`, opens them and measures them; leaving the context deletes them."""

    def __init__(self, use: Use[ExporterPlugin], context: PassContext) -> None:
        self._use, self._context = use, context
        self._folder = tempfile.TemporaryDirectory()
        self._open: list[Predictor] = []
        self._count = 0

    def __enter__(self) -> TrialFiles:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files and deletes them."""
        while self._open:
            close_predictor(self._open.pop())
        self._folder.cleanup()

    def discard(self, file: TrialFile) -> None:
        """Closes one of the files before the others."""
        self._open = [predictor for predictor in self._open if predictor is not file.predictor]
        close_predictor(file.predictor)

    def write(self, state: ModelState, role: Role = Role.OPTIMIZED) -> TrialFile:
        """The file of a state; a float one with the exporter's options for float files, where `role` says that it is
        one.
        """
        import torch  # whoever has a state has imported it already

        self._count += 1
        (folder := Path(self._folder.name) / str(self._count)).mkdir()
        plugin, options, data = self._use.plugin, self._use.options, self._context.data
        if role is Role.BASELINE:
            options = plugin.float_options(options)
        threads = torch.get_num_threads()
        try:
            artifact = make_artifact(
                Use(plugin, options),
                to_program(state, data.validation),
                folder,
                role=role,
                recipe={},
                calibration=data.calibration,
                progress=self._context.progress,
                seed=self._context.seed,
                has_self_test=False,
            )
        finally:
            torch.set_num_threads(threads)
        feed = feeder(artifact.exported.input.holds, state.preprocessing)
        image = feed(data.validation.pixels(range(1)))
        predictor = plugin.open(artifact.path, 1)
        self._open.append(predictor)
        return TrialFile(predictor, artifact.size_bytes, image)


def latencies_ms(files: Sequence[TrialFile]) -> list[float]:
    """Median milliseconds of a call with one image on one thread, of each file.

    They are run in turns, so that a drift of the machine meets them alike.
    """
    times: list[list[float]] = [[] for _ in files]
    for round_number in range(_ROUNDS + 1):
        for mine, file in zip(times, files, strict=True):
            for _ in range(_CALLS if round_number else _WARMUP):
                start = time.perf_counter()
                file.predictor.predict(file.image)
                if round_number:
                    mine.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(mine) for mine in times]
