"""What a network costs as a file, measured in a runtime while channels are being chosen."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeopt.artifact import make_artifact
from edgeopt.evaluate import feeder
from edgeopt.plugin import ExporterPlugin, PassContext, Use
from edgeopt.program import to_program
from edgeopt.types import ModelState, PassRecord, Predictor, Role
from edgeopt_pruning.groups import Dependencies, Removal

_ROUNDS, _CALLS, _WARMUP = 12, 5, 5


class FileMeter:
    """Measures the float file that `use` makes of a module.

    The latency of a file is that of the first one times a ratio: both are run in turns, so that a drift of the machine
    meets them alike.
    """

    def __init__(self, use: Use[ExporterPlugin], state: ModelState, context: PassContext) -> None:
        self._use, self._state, self._context = use, state, context
        self._folder = tempfile.TemporaryDirectory()
        self._files = 0
        self._first, self.size_bytes = self._export(state.module)
        self.latency_ms = statistics.median(self._times(self._first)[0])

    def close(self) -> None:
        """Deletes the files."""
        self._folder.cleanup()

    def bytes_of(self, module: nn.Module) -> float:
        """Bytes of the module's file."""
        return float(self._export(module)[1])

    def latency_of(self, module: nn.Module) -> float:
        """Median milliseconds of a call with one picture, on one thread."""
        first, other = self._times(self._first, self._export(module)[0])
        return self.latency_ms * statistics.median(other) / statistics.median(first)

    def _export(self, module: nn.Module) -> tuple[Predictor, int]:
        self._files += 1
        (folder := Path(self._folder.name) / str(self._files)).mkdir()
        context, threads = self._context, torch.get_num_threads()
        program = to_program(self._state.after(PassRecord("pruned"), module), context.data.validation)
        options = self._use.plugin.float_options(self._use.options)
        try:
            artifact = make_artifact(
                Use(self._use.plugin, options),
                program,
                folder,
                role=Role.BASELINE,
                recipe={},
                calibration=context.data.calibration,
                progress=context.progress,
                seed=context.seed,
            )
        finally:
            torch.set_num_threads(threads)
        self._batch = self._batch_for(artifact.exported.input.holds)
        return self._use.plugin.open(artifact.path, 1), artifact.path.stat().st_size

    def _batch_for(self, holds: str) -> NDArray[np.float32] | NDArray[np.uint8]:
        pixels = self._context.data.validation.pixels(range(1))
        return feeder(holds, self._state.preprocessing)(pixels)

    def _times(self, *predictors: Predictor) -> list[list[float]]:
        """Milliseconds of calls, of each predictor in turn."""
        times: list[list[float]] = [[] for _ in predictors]
        for round_number in range(_ROUNDS + 1):
            for mine, predictor in zip(times, predictors, strict=True):
                for _ in range(_CALLS if round_number else _WARMUP):
                    start = time.perf_counter()
                    predictor.predict(self._batch)
                    if round_number:
                        mine.append((time.perf_counter() - start) * 1e3)
        return times


def cost_in_file(
    module: nn.Module, example: Tensor, measure: Callable[[nn.Module], float]
) -> Callable[[Removal], float]:
    """What `measure` says of a copy of `module` without the channels of a removal."""

    def cost(removal: Removal) -> float:
        pruned = copy.deepcopy(module)
        Dependencies(pruned, example).remove(removal)
        return measure(pruned)

    return cost
