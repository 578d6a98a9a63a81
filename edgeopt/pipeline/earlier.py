"""The float model of an earlier run, for another run to start from or to learn from. Light: a plan looks for it too."""

from __future__ import annotations

from pathlib import Path

from edgeopt.errors import CheckpointError, Location, Problem, UserError
from edgeopt.files import where_looked
from edgeopt.pipeline.runner import store_of
from edgeopt.report.schema import Report


def float_model_folder(run: Path) -> Path:
    """The folder, named by its key, with the float model of a run: the state before its first optimizing pass.

    `edgeopt.networks.saved.load_state` reads it. The run's report names the key; the store lies beside the run's
    folder.

    Raises `CheckpointError` when there is no report, or when the state is no longer in the run's store.
    """
    report = _read(run / "report.json")
    store = store_of(run.parent)
    found = store.find(report.float_model) if report.float_model else None
    if found is None:
        raise CheckpointError(
            Problem(
                f"the float model of run {run} is not in {store.root}",
                "run its recipe again with --fresh; a run of Keras, or one whose folder was moved, has none",
                option="run",
            )
        )
    return found.folder


def _read(file: Path) -> Report:
    try:
        return Report.from_json(file.read_bytes())
    except OSError as error:
        raise CheckpointError(
            Problem(
                f"there is no report {file}: {error.strerror}{where_looked(file)}",
                "run that recipe first, or give the folder that `edgeopt run` wrote",
                option="run",
            )
        ) from error
    except UserError as error:
        raise error.at(lambda *_: Location(str(file))) from error
