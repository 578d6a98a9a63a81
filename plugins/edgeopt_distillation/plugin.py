"""Declares the pass `distill`, and the model `earlier-run`, which is a teacher or a start."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.plugins import ModelPlugin, ModelState, PassContext, PassPlugin, TrainingData, hookimpl
from edgeopt_distillation.options import LIBRARIES, DistillOptions, EarlierRunOptions


def distill(state: ModelState, options: DistillOptions, context: PassContext) -> ModelState:
    """Trains a copy of the model with a teacher; see `edgeopt_distillation.distill`."""
    from edgeopt_distillation.distill import distill_model  # torch and Lightning are heavy

    return distill_model(state, options, context)


def build_earlier(options: EarlierRunOptions, data: TrainingData) -> ModelState:
    """The float model of an earlier run; see `edgeopt_distillation.earlier_run`."""
    from edgeopt_distillation.earlier_run import build  # torch is heavy

    return build(options, data)


def fingerprint_earlier(options: EarlierRunOptions) -> str:
    """The key of the run's float model in its store; raises `CheckpointError` when it is not there."""
    from edgeopt.pipeline.earlier import float_model_folder  # only where a recipe asks for it

    return float_model_folder(options.run).name


@hookimpl
def edgeopt_passes() -> Iterator[PassPlugin]:
    """The passes of this package."""
    yield PassPlugin(
        "distill",
        "Trains the model with the labels and a trained teacher, and shows what the teacher brought.",
        DistillOptions,
        apply=distill,
        libraries=LIBRARIES,
        requires=("lightning",),
        install="edgeopt[vision]",
        optimizes=False,
    )


@hookimpl
def edgeopt_models() -> Iterator[ModelPlugin]:
    """The models of this package."""
    yield ModelPlugin(
        "earlier-run",
        "The float model that an earlier run trained, before that run compressed it.",
        EarlierRunOptions,
        build=build_earlier,
        fingerprint=fingerprint_earlier,
        libraries=LIBRARIES,
    )
