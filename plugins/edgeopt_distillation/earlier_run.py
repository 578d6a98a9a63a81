"""The model `earlier-run`: what a run trained, for another run to start from or to learn from.

Light: the plan looks for the run's model too, so torch is imported only where the model is read.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from edgeopt.errors import CheckpointError, Location, Problem, UserError
from edgeopt.plugin import PassPlugin
from edgeopt.registry import load_registry
from edgeopt.report.schema import Report
from edgeopt.runner import store_of
from edgeopt.states import load_outline, load_state
from edgeopt.types import TORCH, Form, Json, ModelState, PassRecord, TrainingData
from edgeopt_distillation.options import EarlierRunOptions

_REPORT = "report.json"
_STATE = "state.json"


def build(options: EarlierRunOptions, data: TrainingData) -> ModelState:
    """The float model of an earlier run; for other classes than that run's, its head is drawn anew.

    The state is a pickled module: name runs of your own only, as for the folder that `edgeopt run --out` takes.

    Raises `CheckpointError` when the run's model is no longer there, or cannot be read with the versions that are
    installed.
    """
    from edgeopt.modules import float_state, normalization_warnings, replace_head  # torch is heavy

    folder = find_float_model(options.run)
    try:
        earlier = load_state(folder)
    except Exception as error:
        hint = "run its recipe again with --fresh"
        message = f"the float model of run {options.run} cannot be read with what is installed now: {error}"
        raise CheckpointError(Problem(message, hint, option="run")) from error
    module = earlier.module
    facts: dict[str, Json] = {"run": options.run.as_posix(), "classes_kept": earlier.classes == data.classes}
    if earlier.classes != data.classes:
        try:
            facts["head"] = replace_head(module, len(earlier.classes), len(data.classes))
        except ValueError as error:
            message = f"the earlier run's model cannot be given another head: {error}"
            raise CheckpointError(Problem(message, "use the run's own classes")) from error
    preprocessing = earlier.preprocessing
    warnings = normalization_warnings(data.preprocessing, f"of {options.run}", preprocessing.mean, preprocessing.std)
    state = float_state(module, data, facts, warnings)
    return replace(state, imports=earlier.imports, task=earlier.task)


def find_float_model(run: Path) -> Path:
    """The folder, named by its key, that holds the float model of a run: the state before its first optimizing pass.

    It is recognized by its history, which the run's report holds as well. Its key cannot be computed again: keys change
    with every version of edgeopt.

    Raises `CheckpointError` when there is no report, or when the state is no longer in the run's store, and
    `PluginError` when a pass of the run is not installed.
    """
    report = _read(run / _REPORT)
    steps = [step["use"] for step in report.recipe.resolved.get("passes", ())]
    wanted = _plain(report.passes[: len(report.passes) - len(steps) + _float_passes(steps)])
    store = store_of(run.parent)
    for file in sorted(store.root.glob(f"*/*/{_STATE}")):
        if (found := store.find(file.parent.name)) is None:
            continue  # made by halves
        outline = load_outline(found.folder)
        if outline.form is Form.MODULE and outline.framework == TORCH and _plain(outline.history) == wanted:
            return found.folder
    raise CheckpointError(
        Problem(
            f"the float model of run {run} is not in {store.root}",
            "run its recipe again with --fresh; a run of Keras, or one whose folder was moved, has none",
            option="run",
        )
    )


def _read(file: Path) -> Report:
    try:
        return Report.from_json(file.read_bytes())
    except OSError as error:
        raise CheckpointError(
            Problem(
                f"there is no report {file}: {error.strerror}",
                "run that recipe first, or give the folder that `edgeopt run` wrote",
                option="run",
            )
        ) from error
    except UserError as error:
        raise error.at(lambda *_: Location(str(file))) from error


def _float_passes(steps: list[str]) -> int:
    """How many of the passes made the float model; raises `PluginError` for one that is not installed."""
    registry = load_registry()
    return next((index for index, name in enumerate(steps) if registry.get(PassPlugin, name).optimizes), len(steps))


def _plain(history: tuple[PassRecord, ...]) -> Json:
    """A history as JSON that can be compared: figures that are not finite are words, as in a report."""
    from pydantic_core import to_json  # only where a run is looked for

    return json.loads(to_json(history, inf_nan_mode="strings"))
