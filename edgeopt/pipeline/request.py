"""What a run is asked for, and what it leaves behind. Light."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.errors import EdgeoptError
from edgeopt.pipeline.pauses import Pause
from edgeopt.recipe.read import Recipe
from edgeopt.recipe.stage import JudgedOn
from edgeopt.workers.bucket import Bucket

if TYPE_CHECKING:  # read when a run has ended
    from edgeopt.report.schema import Report


@dataclass(frozen=True)
class Beside:
    """That a run works beside others of this machine on one store: it measures alone, on the processors `cores`, and
    stops while one of the others measures.
    """

    cores: frozenset[int]


@dataclass(frozen=True)
class RunRequest:
    """A recipe, the `--set` changes of it, and how it is run.

    `smoke` runs the whole of it on few batches, `fresh` uses no earlier result, `measure_again` no earlier latency and
    memory, `locked` refuses to run when anything is not as `lock.toml` says, and without `devices` no file is taken to
    the devices of the recipe. Results go to `out/NAME`, cached stages to `out/.store`. `plugin_files` are loaded
    besides those that the recipe names.

    `below` is the folder below `out` that the run's own folder goes to. Files are judged on the images of `judged_on`;
    where these are not the test images, no page is written. With `shapes`, everything is made of few images, as in a
    smoke run, and measured as the recipe says: size and latency depend on shapes, and not on what weights have learned.

    With `pause`, the run ends there with `PausedError`, unless its trainings are further already; asked again without
    it, or with a later one, it goes on. `beside` says that other runs work beside this one. Machines that share no disk
    share results of stages through the `bucket`.
    """

    recipe: Recipe | Path | str
    overrides: tuple[str, ...] = ()
    smoke: bool = False
    fresh: bool = False
    measure_again: bool = False
    locked: bool = False
    devices: bool = True
    out: Path = Path("runs")
    plugin_files: tuple[Path, ...] = ()
    below: str = ""
    judged_on: JudgedOn = JudgedOn.TEST
    shapes: bool = False
    pause: Pause | None = None
    beside: Beside | None = None
    bucket: Bucket | None = None


@dataclass(frozen=True)
class RunResult:
    """What a run left behind: the report, the folder with all files, why rows of files and of devices could not be
    made, and as `notes` what an earlier run had left in that folder, and what nobody saw who has no console.
    """

    report: Report
    folder: Path
    failures: tuple[EdgeoptError, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def gates_passed(self) -> bool:
        """Whether every gate of the recipe was reached."""
        return all(gate.passed for gate in self.report.gates)
