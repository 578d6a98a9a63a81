"""The model `earlier-run`: what a run trained, for another run to start from or to learn from.

Light: torch is imported only where the model is read.
"""

from __future__ import annotations

from dataclasses import replace

from edgeopt.networks.saved import load_outline, load_state
from edgeopt.pipeline.earlier import float_model_folder
from edgeopt.plugins import (
    ONLY_LOGITS,
    CheckpointError,
    Json,
    ModelState,
    Preprocessing,
    Problem,
    TrainingData,
)
from edgeopt_distillation.options import EarlierRunOptions


def trained_preprocessing(options: EarlierRunOptions) -> Preprocessing:
    """How the images were prepared with which the earlier run trained.

    Raises `CheckpointError` when the run's model is no longer there.
    """
    return load_outline(float_model_folder(options.run)).preprocessing


def build(options: EarlierRunOptions, data: TrainingData) -> ModelState:
    """The float model of an earlier run; for other classes than that run's, its head is drawn anew.

    The state is a pickled module: name runs of your own only, as for the folder that `edgeopt run --out` takes.

    Raises `CheckpointError` when the run's model is no longer there, or cannot be read with the versions that are
    installed.
    """
    from edgeopt.networks.heads import float_state, normalization_warnings, replace_head  # torch is heavy

    folder = float_model_folder(options.run)
    try:
        earlier = load_state(folder)
    except Exception as error:
        hint = "run its recipe again with --fresh"
        message = f"the float model of run {options.run} cannot be read with what is installed now: {error}"
        raise CheckpointError(Problem(message, hint, option="run")) from error
    module = earlier.module
    facts: dict[str, Json] = {"run": options.run.as_posix(), "classes_kept": earlier.classes == data.classes}
    if earlier.classes != data.classes:
        if earlier.output_names != ONLY_LOGITS:
            message = f"run {options.run} is of other classes, and only a classifier can be given another head"
            raise CheckpointError(Problem(message, "use the run's own classes", option="run"))
        try:
            facts["head"] = replace_head(module, len(earlier.classes), len(data.classes))
        except ValueError as error:
            message = f"the earlier run's model cannot be given another head: {error}"
            raise CheckpointError(Problem(message, "use the run's own classes")) from error
    preprocessing = earlier.preprocessing
    warnings = normalization_warnings(data.preprocessing, f"of {options.run}", preprocessing.mean, preprocessing.std)
    state = float_state(module, data, facts, warnings)
    untrained = (str(facts["head"]),) if "head" in facts else ()
    return replace(
        state, imports=earlier.imports, task=earlier.task, untrained=untrained, output_names=earlier.output_names
    )
