"""`edgeopt tune`."""

from __future__ import annotations

from importlib.util import find_spec

from edgeopt.cli.consoles import stderr, stdout
from edgeopt.errors import GateError, MissingExtraError, one_error
from edgeopt.tuning.request import TuneRequest
from edgeopt.tuning.terminal import render, render_plan


def check_study(request: TuneRequest) -> None:
    """Finds everything that is wrong with a study, or prints what it would do."""
    from edgeopt.pipeline.runner import store_of
    from edgeopt.tuning.outlook import outlook_of
    from edgeopt.tuning.plan import plan_study

    study = plan_study(request)
    render_plan(study, outlook_of(study, store_of(request.out)), stdout())


def tune_recipe(request: TuneRequest) -> None:
    """Makes a study and prints what it found.

    Raises `MissingExtraError` without the extra `tune`, `GateError` where no trial reaches the goal, and what
    went wrong with the winner's files.
    """
    from edgeopt.tuning.page import PAGE
    from edgeopt.tuning.study import tune
    from edgeopt.tuning.trials import FILE
    from edgeopt.tuning.winner import PARETO, WINNER, misses

    if find_spec("optuna") is None:
        raise MissingExtraError("edgeopt tune needs optuna", hint="pip install 'edgeopt[tune]'")
    result = tune(request, stderr())
    folder = result.study.folder
    files = [folder / name for name in (PAGE, WINNER, PARETO, FILE)]
    reports = [result.run.folder / "report.html"] if result.run else []
    render(result, stdout(), [*files, *reports])
    if result.run is not None and result.run.failures:  # of the winner's files, on test images
        raise one_error(result.run.failures)
    if not result.reaches_goal:
        nearest = f"; the nearest is trial {result.best.number}: {misses(result.best)}" if result.best else ""
        raise GateError([f"no trial reaches the goal{nearest}"])
