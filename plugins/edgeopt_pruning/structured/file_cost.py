"""What a network costs as a file, measured in a runtime while channels are being chosen."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from edgeopt.export.trial_files import TrialFile, TrialFiles, latencies_ms
from edgeopt.networks.copies import copy_module
from edgeopt.plugins import ExporterPlugin, ModelState, PassContext, PassRecord, Role, Use
from edgeopt_pruning.structured.groups import Dependencies, Removal


class FileMeter:
    """Measures the float file that `use` makes of a module.

    The latency of a file is that of the first one times a ratio: both are run in turns, so that a drift of the machine
    meets them alike.
    """

    def __init__(self, use: Use[ExporterPlugin], state: ModelState, context: PassContext) -> None:
        self._files, self._state = TrialFiles(use, context), state
        self._first = self._write(state.module)
        self.size_bytes = self._first.size_bytes
        (self.latency_ms,) = latencies_ms([self._first])

    def close(self) -> None:
        """Deletes the files."""
        self._files.close()

    def bytes_of(self, module: nn.Module) -> float:
        """Bytes of the module's file."""
        file = self._write(module)
        self._files.discard(file)
        return float(file.size_bytes)

    def latency_of(self, module: nn.Module) -> float:
        """Median milliseconds of a call with one image, on one thread."""
        file = self._write(module)
        first, other = latencies_ms([self._first, file])
        self._files.discard(file)
        return self.latency_ms * other / first

    def _write(self, module: nn.Module) -> TrialFile:
        return self._files.write(self._state.after(PassRecord("pruned"), module), Role.BASELINE)


def cost_in_file(
    module: nn.Module, example: Tensor, measure: Callable[[nn.Module], float]
) -> Callable[[Removal], float]:
    """What `measure` says of a copy of `module` without the channels of a removal."""

    def cost(removal: Removal) -> float:
        pruned = copy_module(module)
        Dependencies(pruned, example).remove(removal)
        return measure(pruned)

    return cost
