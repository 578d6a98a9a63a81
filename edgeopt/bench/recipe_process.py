"""The run of one recipe in a process of its own, beside others: `python -m edgeopt.bench.recipe_process JOB.json`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgeopt.bench.run import BenchResult
from edgeopt.bench.whole_recipe import sweep
from edgeopt.cores import own_cores
from edgeopt.errors import EdgeoptError, Problem, UserError, WorkerError
from edgeopt.files import write_aside
from edgeopt.json_values import from_text, to_text
from edgeopt.pipeline import runner
from edgeopt.pipeline.request import Beside, RunRequest
from edgeopt.recipe.read import recipe_of_text
from edgeopt.workers.bucket import Bucket
from edgeopt.workers.own_cores import some_cores
from edgeopt.workers.process import Events, die_with_parent, leave, work

if TYPE_CHECKING:  # rich is loaded when something is shown
    from rich.console import Console


@dataclass(frozen=True)
class Bug:
    """A failure that is nobody's mistake, and the log that has the whole story, if there is one."""

    message: str
    log: str | None = None

    @classmethod
    def of(cls, error: EdgeoptError) -> Bug:
        """What an error says."""
        return cls(str(error), error.log if isinstance(error, WorkerError) else None)


@dataclass(frozen=True)
class RecipeOutcome:
    """What became of a recipe: its run's folder, why rows of its report are missing, and which gates were missed.

    Where there was no run at all, `folder` is None.
    """

    recipe: Path
    folder: Path | None = None
    problems: tuple[Problem, ...] = ()
    bugs: tuple[Bug, ...] = ()
    gates: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether nothing went wrong."""
        return self.folder is not None and not (self.problems or self.bugs or self.gates)


@dataclass(frozen=True)
class RecipeJob:
    """What a worker is to do: to run a recipe on `cores` processors, and to say in `outcome` what became of it. Where
    its machine need not have the file, `text` is what stands in it.
    """

    module: ClassVar[str] = "edgeopt.bench.recipe_process"

    recipe: Path
    overrides: tuple[str, ...]
    smoke: bool
    fresh: bool
    measure_again: bool
    locked: bool
    devices: bool
    out: Path
    plugin_files: tuple[Path, ...]
    outcome: Path
    cores: int
    text: str | None = None
    bucket: Bucket | None = None

    @classmethod
    def of(cls, request: RunRequest, outcome: Path, cores: int, text: str | None) -> RecipeJob:
        """The job for a request whose recipe is a file."""
        assert isinstance(request.recipe, Path)
        return cls(
            recipe=request.recipe,
            overrides=request.overrides,
            smoke=request.smoke,
            fresh=request.fresh,
            measure_again=request.measure_again,
            locked=request.locked,
            devices=request.devices,
            out=request.out,
            plugin_files=request.plugin_files,
            outcome=outcome,
            cores=cores,
            text=text,
            bucket=request.bucket,
        )

    @property
    def request(self) -> RunRequest:
        """The request again."""
        is_read = self.text is not None
        return RunRequest(
            recipe_of_text(self.text, str(self.recipe), self.overrides) if self.text is not None else self.recipe,
            () if is_read else self.overrides,
            smoke=self.smoke,
            fresh=self.fresh,
            measure_again=self.measure_again,
            locked=self.locked,
            devices=self.devices,
            out=self.out,
            plugin_files=self.plugin_files,
            bucket=self.bucket,
        )


def outcome_of(recipe: Path, request: RunRequest, console: Console | None = None) -> RecipeOutcome:
    """Runs the recipe of a file, with its sweep, and says what became of it; raises what keeps it from being run."""
    result = runner.run(request, console)
    done = sweep(result, request, console)
    failures = (*result.failures, *(done.failures if isinstance(done, BenchResult) else ()))
    return RecipeOutcome(
        recipe,
        result.folder,
        tuple(each for failure in failures if isinstance(failure, UserError) for each in failure.problems),
        tuple(Bug.of(failure) for failure in failures if not isinstance(failure, UserError)),
        tuple(gate.message for gate in result.report.gates if not gate.passed),
    )


def main(events: Events) -> None:  # noqa: ARG001 - as workers are called
    """Runs the recipe that the command line's job names."""
    job = from_text(RecipeJob, Path(sys.argv[1]).read_text())
    die_with_parent()
    request = replace(job.request, beside=Beside(own_cores()))
    with some_cores(runner.store_of(job.out).turns, job.cores):
        outcome = outcome_of(job.recipe, request)
    write_aside(job.outcome, to_text(outcome))


if __name__ == "__main__":
    leave(work(main))
