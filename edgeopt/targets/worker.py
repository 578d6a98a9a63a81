"""The process that makes a recipe's program where it is missing, and asks accelerators about it."""

from __future__ import annotations

import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from edgeopt.arrays import Json
from edgeopt.errors import ExportError, NothingChangedError, in_a_line
from edgeopt.json_values import from_text, to_text
from edgeopt.pipeline.job import bench_of, do_stages
from edgeopt.pipeline.stages import Workbench
from edgeopt.plugins.accelerator import AcceleratorRequest
from edgeopt.plugins.blame import blamed
from edgeopt.plugins.handed import handed
from edgeopt.targets.asked import Outcome, Question
from edgeopt.targets.run import OUTCOME, Questions, TargetJob, accelerator_of
from edgeopt.types import TORCH, ModelState
from edgeopt.workers.process import Events, die_with_parent, leave, work


def main(events: Events) -> None:
    """Does the job that the command line names."""
    given = from_text(TargetJob, Path(sys.argv[1]).read_text())
    die_with_parent()
    bench = bench_of(given.job, events)
    do_stages(bench, given.job.stages, events)
    for question in handed(Questions, given.questions).all:
        label = f"{question.called} for {question.target}"
        events.send({"event": "stage", "name": label, "label": label})

        def make(folder: Path, question: Question = question) -> dict[str, Json]:
            outcome = _asked(bench, question)
            (folder / OUTCOME).write_text(to_text(outcome), encoding="utf-8")
            return {"operators": len(outcome.answer.operators) if outcome.answer else 0}

        result = bench.store.compute(question.key, make, label)
        events.send({"event": "stage-end", "name": label, "seconds": result.seconds})


def _asked(bench: Workbench, question: Question) -> Outcome:
    from edgeopt.export.make import as_exported, make_artifact  # NumPy, which the parent does without

    use, state = question.use, bench.state(question.program_stage)
    accelerator = accelerator_of(use.plugin, question.target)
    assert accelerator is not None  # the parent has chosen the exporter for it

    with tempfile.TemporaryDirectory() as folder:

        def write() -> Path:
            return make_artifact(
                use,
                state,
                Path(folder),
                role=question.role,
                recipe={},
                calibration=bench.training().calibration,
                progress=bench.progress,
                seed=0,
                has_self_test=False,
            ).path

        try:
            given, _behind = as_exported(use, state)
            request = AcceleratorRequest(given, use.options, write)
            with _tracing(state), blamed(use.plugin, f"accelerator {accelerator.name!r}"):
                return Outcome(accelerator.ask(request))
        except (ExportError, NothingChangedError) as error:  # what an export of this program would end with
            return Outcome(refused=in_a_line(error))


def _tracing(state: ModelState) -> AbstractContextManager[None]:
    """Within, graphs of torch are traced as quickly as in an export."""
    if state.framework != TORCH:
        return nullcontext()
    from edgeopt.networks.tracing import quick_tracing  # torch, which does not come into a process of TensorFlow

    return quick_tracing()


if __name__ == "__main__":
    leave(work(main))
