"""The programs behind the files of a finished run, and the modules that they were made of, as its store has them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeopt.errors import Problem, UserError
from edgeopt.networks.saved import load_outline
from edgeopt.pipeline.record import RunRecord, read_record
from edgeopt.pipeline.runner import store_of
from edgeopt.recipe.stage import StageKind
from edgeopt.report.reading import read_report
from edgeopt.types import TORCH, Form, Role


@dataclass(frozen=True)
class KeptProgram:
    """Folders of the store: the program behind a file, the last state in module form on the way to it, and the images.

    `is_fixed` says that a pass made the program of that module, so that it is no mere capture of it.
    """

    program: Path
    origin: Path
    is_fixed: bool
    data: Path


def kept_program(run: Path, role: Role) -> KeptProgram:
    """What a finished run keeps of the program behind its files of a role.

    Raises `UserError` where its store no longer has it, or where it is a model of another framework than PyTorch.
    """
    record = read_record(run) or RunRecord({})
    own = f"{StageKind.PROGRAM}-{role}"
    stage = own if own in record.stages else f"{StageKind.PROGRAM}-{Role.BASELINE}"
    program, data = _folder(run, record, stage), _folder(run, record, StageKind.DATA)
    framework = load_outline(program).framework
    if framework != TORCH:
        message = f"{run} has a model of {framework}, and files are made anew of programs of {TORCH} alone"
        raise UserError(Problem(message, "leave out the sizes, and the numbers of images that its files do not take"))
    before = _states_before(run, record, stage)
    origin = next((each for each in reversed(before) if load_outline(each).form is Form.MODULE), None)
    if origin is None:
        raise _gone(run)
    return KeptProgram(program, origin, load_outline(before[-1]).form is Form.PROGRAM, data)


def _states_before(run: Path, record: RunRecord, stage: str) -> list[Path]:
    """The states on the way to a program, in their order."""
    kinds = (StageKind.MODEL, StageKind.PASS)
    names = [name for name in record.stages if name.partition("-")[0] in kinds]
    if stage == f"{StageKind.PROGRAM}-{Role.BASELINE}":
        last = read_report(run).float_model
        names = names[: [record.stages[name] for name in names].index(last) + 1] if last else names
    return [_folder(run, record, name) for name in names]


def _folder(run: Path, record: RunRecord, stage: str) -> Path:
    key = record.stages.get(stage)
    found = store_of(run.resolve().parent).find(key) if key else None
    if found is None:
        raise _gone(run)
    return found.folder


def _gone(run: Path) -> UserError:
    message = f"{run}: what its files were made from is no longer in the store beside it"
    return UserError(Problem(message, "run its recipe again: it makes again what is missing, and trains nothing anew"))
