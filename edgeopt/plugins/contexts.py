"""What a pass and an exporter work with besides the model and their options."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.options import TrainerSettings
from edgeopt.tasks.endings import Tail
from edgeopt.tracking.tracked import Part, TrackedRun
from edgeopt.types import (
    Card,
    ModelState,
    Split,
    TrainingData,
)

if TYPE_CHECKING:
    from edgeopt.progress import Progress


@dataclass(frozen=True)
class Budget:
    """Bounds that `--smoke` puts on work; None for none."""

    epochs: int | None = None
    batches: int | None = None
    images: int | None = None

    def of(self, bound: int | None, wanted: int) -> int:
        """`wanted`, cut to `bound`."""
        return wanted if bound is None else min(bound, wanted)


FULL_BUDGET = Budget()


SMOKE_BUDGET = Budget(epochs=1, batches=2, images=48)


@dataclass(frozen=True)
class PassContext:
    """What a pass works with besides the state and its options.

    `work_dir` outlives a killed run: a pass leaves checkpoints there and finds them again. `seed` is the pass's own.
    `baseline()` gives the float state as it was before the first pass that optimizes; None for a pass that comes before
    that. `tracked` is the run in the trackers that follow it, for the figures of each epoch; see `tracked_part`.

    After `pause_epochs` epochs of its training, where that is not None, a pass keeps its checkpoint and raises
    `PausedError`; a pass that does not is trained to its end where others would have been stopped.
    """

    data: TrainingData
    trainer: TrainerSettings
    seed: int
    work_dir: Path
    progress: Progress
    budget: Budget = FULL_BUDGET
    baseline: Callable[[], ModelState] | None = None
    tracked: TrackedRun | None = None
    pause_epochs: int | None = None

    def tracked_part(self, name: str) -> AbstractContextManager[Part]:
        """The trackers opened for a training of this name; what is entered logs nowhere where there are none."""
        return self.tracked.part(name) if self.tracked else nullcontext(Part(name))


@dataclass(frozen=True)
class ExportContext:
    """Where an exporter writes, and the card that it completes with `with_tensors` and embeds where the format allows.

    `calibration` are the images for exporters that quantize by themselves, and `seed` is the export's own. `tail` are
    the last operators of the file behind the program, for an exporter that declares `tails`, and None for a file that
    ends where its program does; `output_names` are those of the file then, and the state's are what the tail takes.
    """

    path: Path
    card: Card
    progress: Progress
    calibration: Split
    seed: int = 0
    tail: Tail | None = None
    output_names: tuple[str, ...] = ()
