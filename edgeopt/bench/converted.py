"""Files that `edgeopt convert` made: no run says how often they are right, and labelled images do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeopt.bench.labelled import LabelledJob
from edgeopt.bench.labelled_file import LabelledFile
from edgeopt.bench.request import BenchRequest
from edgeopt.bench.rows import fed
from edgeopt.errors import Problem, RecipeError
from edgeopt.plugins.declarations import DatasetPlugin
from edgeopt.plugins.handed import hand_over
from edgeopt.plugins.registry import Registry
from edgeopt.plugins.use import Use
from edgeopt.recipe.lookup import resolve
from edgeopt.recipe.read import Source, overridden
from edgeopt.report.finished_files import FinishedFile
from edgeopt.workers.pool import Workers

_SILENCE_S = 3600.0  # of a data set that is downloaded and decoded


def named_dataset(
    request: BenchRequest, alone: Sequence[FinishedFile], registry: Registry
) -> Use[DatasetPlugin] | None:
    """The data set that a request names. Raises `RecipeError` where it, its options or its files are not right."""
    problems = []
    if request.dataset and not alone:
        hint = "leave --dataset out: the accuracy of these is that of their runs"
        problems.append(Problem("--dataset is for files of no run, and none is named", hint))
    values, lines = overridden({"dataset": {}}, Source(), request.overrides)
    if others := [name for name in values if name != "dataset"]:
        problems.append(Problem(f"--set {others[0]}.…: there is no such table here", "the table is dataset"))
    if values["dataset"] and not request.dataset:
        problems.append(Problem("--set dataset.…: no data set is named", "name one with --dataset"))
    if problems:
        raise RecipeError(*problems)
    if not request.dataset:
        return None
    return resolve(DatasetPlugin, request.dataset, values["dataset"], registry, lines, ("dataset",))


@dataclass(frozen=True)
class Labelled:
    """Labelled images for files of no run."""

    request: BenchRequest
    dataset: Use[DatasetPlugin]
    registry: Registry
    workers: Workers

    def judged(self, files: Sequence[FinishedFile]) -> tuple[tuple[FinishedFile, ...], str]:
        """The files with their accuracies, and for which images these are."""
        found = {file.name: self._right(number, file) for number, file in enumerate(files) if file.is_converted}
        judged = [
            replace(each, row=replace(each.row, test_accuracy=found[each.name][0])) if each.name in found else each
            for each in files
        ]
        counts = " and ".join(dict.fromkeys(f"{count:,}" for _, count in found.values()))
        return tuple(judged), f"{counts} test images of {self.dataset.plugin.name}"

    def _right(self, number: int, file: FinishedFile) -> tuple[float, int]:
        """The share of right answers of a file, and the number of images."""
        target = self.workers.folder / f"labelled-{number}.pickle"
        hand_over(LabelledFile(fed(file, self.registry), file.card.classes, self.dataset), target, self.registry)
        job = LabelledJob(target, self.request.images, self.request.threads[0])
        worker = self.workers.start(job, f"answers: {file.name}", self.request.threads[0])
        while (event := worker.event(_SILENCE_S))["event"] not in ("right", "end"):
            continue
        self.workers.finish(worker, _SILENCE_S)
        return float(event["share"]), int(event["images"])
