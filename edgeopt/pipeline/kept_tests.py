"""The test images of a finished run and what its programs answered for them, as its store still has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.arrays import OUTPUTS, load_outputs, of_images
from edgeopt.errors import Problem, UserError
from edgeopt.options import without_augmentation
from edgeopt.pipeline.record import read_record
from edgeopt.pipeline.runner import store_of
from edgeopt.plugins.declarations import DatasetPlugin
from edgeopt.plugins.registry import Registry
from edgeopt.recipe.lookup import resolve
from edgeopt.recipe.stage import StageKind
from edgeopt.report.reading import read_report
from edgeopt.tasks.base import Task
from edgeopt.types import RawDataset, Role, targets_of
from edgeopt.workers.store import Result

if TYPE_CHECKING:  # NumPy is heavy, and only named here
    from edgeopt.arrays import Outputs, Pixels


@dataclass(frozen=True, eq=False)
class KeptTests:
    """Test images, uint8 (n, height, width, channels), their targets, and what the programs behind the files answered.

    Where a run has one program, files of both roles are made from it.
    """

    task: Task
    pixels: Pixels
    targets: Any
    programs: Mapping[Role, Outputs]
    output_names: tuple[str, ...]

    def program(self, role: Role) -> Outputs:
        """What the program behind a file of a role answered."""
        return self.programs[role if role in self.programs else Role.BASELINE]


def kept_tests(run: Path, registry: Registry, most: int) -> KeptTests:
    """The first `most` test images of a finished run, which are spread over its classes.

    Raises `UserError` where its store no longer has them.
    """
    from edgeopt.data.cache import load_test, opener  # heavy, as is what reads images
    from edgeopt.networks.saved import load_outline

    data = _kept(run, StageKind.DATA)
    split = load_test(data.folder, opener(data.folder, partial(_load, run, registry)))
    count = min(most, len(split))
    folders = {role: _kept(run, f"{StageKind.PROGRAM}-{role}").folder for role in Role if _has(run, role)}
    outline = load_outline(folders[Role.BASELINE])
    return KeptTests(
        outline.task,
        split.pixels(range(count)),
        targets_of(split)[:count],
        {role: of_images(load_outputs(folder / OUTPUTS), slice(count)) for role, folder in folders.items()},
        outline.output_names,
    )


def _has(run: Path, role: Role) -> bool:
    record = read_record(run)
    return record is not None and f"{StageKind.PROGRAM}-{role}" in record.stages


def _kept(run: Path, stage: str) -> Result:
    record = read_record(run)
    key = record.stages.get(stage) if record else None
    found = store_of(run.resolve().parent).find(key) if key else None
    if found is None:
        message = f"{run}: its test images are no longer in the store beside it"
        raise UserError(
            Problem(message, "run its recipe again: it makes again what is missing, and trains nothing anew")
        )
    return found


def _load(run: Path, registry: Registry) -> RawDataset:
    """The data set of a run, where its images were too many to be kept."""
    values = dict(read_report(run).recipe.resolved["dataset"])
    use = resolve(DatasetPlugin, values.pop("use"), values, registry)
    return use.plugin.load(without_augmentation(use.options))
