"""Builds torchvision's classification networks for a data set's classes."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from edgeopt.networks.checkpoints import Loaded, StateDict, load_state, read_checkpoint
from edgeopt.networks.heads import (
    find_head,
    float_state,
    normalization_warnings,
    require_input,
    set_batch_norm_momentum,
    take_channels,
)
from edgeopt.plugins import (
    Json,
    ModelState,
    Preprocessing,
    Problem,
    RecipeError,
    TrainingData,
    first_line,
    size_in_words,
)
from edgeopt_torchvision.compat import import_torchvision
from edgeopt_torchvision.published import published_state

if TYPE_CHECKING:
    from edgeopt_torchvision.options import TorchvisionOptions

_FEATURES_ONLY = "IMAGENET1K_FEATURES"  # VGG-16 for detectors: its classifier is full of NaN
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")  # heads that only helped training
_OLD_DENSENET_NAME = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")


def build(options: TorchvisionOptions, data: TrainingData) -> ModelState:
    """A float network for the classes of `data`, its fresh layers drawn from torch's seeded generator.

    Raises `CheckpointError` when its weights cannot be had or do not fit, `RecipeError` when it does not take the
    images.
    """
    torchvision = import_torchvision()
    preprocessing = data.preprocessing
    hint = _size_hint(options.arch)
    try:
        model: nn.Module = torchvision.models.get_model(
            options.arch, weights=None, num_classes=len(data.classes), **_arguments(options, preprocessing)
        )
    except (AssertionError, ValueError) as error:  # networks that are made for one size of images
        raise RecipeError(
            Problem(f"{options.arch} does not take images of {_px(preprocessing)} px: {first_line(error)}", hint)
        ) from error
    first = take_channels(model, preprocessing.channels)
    size, classes = preprocessing.image_size, len(data.classes)
    require_input(model, options.arch, size, classes, hint, channels=preprocessing.channels)
    norms = set_batch_norm_momentum(model, options.batch_norm_momentum)
    facts: dict[str, Json] = {"arch": options.arch, "weights": options.weights, "batch_norms": norms}
    if first:
        facts["first_convolution"] = f"{first}, for {preprocessing.channels} channel"
    warnings: list[str] = []
    untrained: tuple[str, ...] = ()
    if options.weights != "none":
        loaded, warnings = _load(model, options, data)
        facts["loaded"], untrained = str(loaded), loaded.untrained
    state = float_state(model, data, facts, warnings)
    return replace(state, imports=("edgeopt_torchvision.loaded",), untrained=untrained)


def _px(preprocessing: Preprocessing) -> str:
    return size_in_words(preprocessing.image_size)


def _arguments(options: TorchvisionOptions, preprocessing: Preprocessing) -> dict[str, Any]:
    """What some architectures need to know besides the number of classes.

    Raises `ValueError` for one of square images where others are asked for.
    """
    if options.arch.startswith("vit_"):
        if not isinstance(preprocessing.image_size, int):
            raise ValueError("it takes square images alone")
        return {"image_size": preprocessing.image_size}
    if options.zero_init_residual:
        return {"zero_init_residual": True}
    if options.arch == "maxvit_t":
        return {"input_size": preprocessing.size}
    if options.arch in ("inception_v3", "googlenet"):
        pretrained = options.weights != "none" and preprocessing.channels == 3
        # pretrained ones were trained on -1..1 and turn ImageNet-normalized input into that themselves
        return {"aux_logits": False, "init_weights": options.weights == "none", "transform_input": pretrained}
    return {}


def _size_hint(arch: str) -> str | None:
    """Which sizes an architecture takes, where it does not take all above a smallest one."""
    if arch.startswith("vit_"):
        return f"set image_size to a multiple of {arch.rpartition('_')[2]}"
    return "set image_size to a multiple of 224" if arch == "maxvit_t" else None


def _load(model: nn.Module, options: TorchvisionOptions, data: TrainingData) -> tuple[Loaded, list[str]]:
    """Fills the model with the weights that the recipe names."""
    heads = {find_head(model, len(data.classes))}
    if options.checkpoint is not None:
        state = read_checkpoint(options.checkpoint, model.state_dict())
        warnings: list[str] = []
    else:
        state, warnings = _pretrained(options, data)
    if options.weights == _FEATURES_ONLY:
        heads = {"classifier"}
        kept = {name: value for name, value in state.items() if not name.startswith("classifier.")}
        state = StateDict(kept, state.versions)
    loaded = load_state(model, _adapted(state, model), options.weights, heads)
    return loaded, [*warnings, *loaded.warnings]


def _pretrained(options: TorchvisionOptions, data: TrainingData) -> tuple[StateDict, list[str]]:
    """Torchvision's own weights, from its cache or the network, and what speaks against them here."""
    weights = import_torchvision().models.get_model_weights(options.arch)[options.weights]
    state = published_state(options.arch, weights)
    transforms = weights.transforms()
    return state, normalization_warnings(data.preprocessing, weights.name, transforms.mean, transforms.std)


def _adapted(state: StateDict, model: nn.Module) -> StateDict:
    """The state under today's names, without auxiliary heads, positions resampled to the size of the images."""
    own = model.state_dict()
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        old = _OLD_DENSENET_NAME.fullmatch(name)
        if not name.startswith(_AUXILIARY):
            renamed[f"{old[1]}{old[2]}" if old else name] = value
    positions = renamed.get("encoder.pos_embedding")
    patch, size = getattr(model, "patch_size", None), getattr(model, "image_size", None)
    if positions is not None and positions.shape != own.get("encoder.pos_embedding", positions).shape:
        resample = import_torchvision().models.vision_transformer.interpolate_embeddings
        with suppress(ValueError):  # positions of another network: the tensors are compared next
            renamed = dict(resample(size, patch, renamed))
    return StateDict(renamed, state.versions, state.beside)
