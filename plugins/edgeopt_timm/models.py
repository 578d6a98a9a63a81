"""Builds timm's networks for a data set's classes."""

from __future__ import annotations

import importlib
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from torch import nn

from edgeopt.networks.checkpoints import load_checkpoint
from edgeopt.networks.heads import (
    find_head,
    float_state,
    normalization_warnings,
    require_input,
    set_batch_norm_momentum,
)
from edgeopt.networks.weights_option import checkpoint_path
from edgeopt.plugins import (
    CheckpointError,
    Json,
    ModelState,
    Preprocessing,
    Problem,
    RecipeError,
    TrainingData,
    did_you_mean,
    first_line,
    size_in_words,
)
from edgeopt_torchvision.compat import import_torchvision

if TYPE_CHECKING:
    from edgeopt_timm.options import TimmOptions


def build(options: TimmOptions, data: TrainingData) -> ModelState:
    """A float network for the classes of `data`, its fresh layers drawn from torch's seeded generator.

    Raises `RecipeError` for an unknown architecture or one that does not take the images, `CheckpointError` when the
    weights cannot be had or do not fit.
    """
    timm = _import_timm()
    _require_known(timm, options.arch)
    classes, preprocessing = len(data.classes), data.preprocessing
    model = _create(timm, options, classes, preprocessing)
    require_input(model, options.arch, preprocessing.image_size, classes, channels=preprocessing.channels)
    norms = set_batch_norm_momentum(model, options.batch_norm_momentum)
    facts: dict[str, Json] = {"arch": options.arch, "weights": options.weights, "batch_norms": norms}
    if preprocessing.channels == 1:
        how = "weights summed over red, green and blue" if options.weights == "pretrained" else "for 1 channel"
        facts["first_convolution"] = f"{model.pretrained_cfg['first_conv']}, {how}"
    warnings: list[str] = []
    config = model.pretrained_cfg
    untrained: tuple[str, ...] = ()
    if options.weights == "pretrained":
        untrained = () if classes == config["num_classes"] else tuple(sorted(_heads(model, classes)))
        warnings = normalization_warnings(data.preprocessing, options.arch, config["mean"], config["std"])
    if path := checkpoint_path(options.weights):
        loaded = load_checkpoint(model, path, _heads(model, classes))
        facts["loaded"], warnings, untrained = str(loaded), [*warnings, *loaded.warnings], loaded.untrained
    state = float_state(model, data, facts, warnings)
    return replace(state, imports=("edgeopt_torchvision.loaded",), untrained=untrained)


def _import_timm() -> ModuleType:
    import_torchvision()  # timm imports it, and a plain import fails beside a torch of another build
    return importlib.import_module("timm")


def _require_known(timm: ModuleType, arch: str) -> None:
    """Raises for names that timm does not list; it would take `hf-hub:` and `local-dir:` places as well."""
    name, _, tag = arch.partition(".")
    if not timm.is_model(name):
        raise RecipeError(
            Problem(
                f"timm has no architecture {arch!r}", did_you_mean(arch, timm.list_models()) or "see timm.list_models()"
            )
        )
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{name}.*")]
    if tag and tag not in tags:
        raise RecipeError(
            Problem(f"timm has no weights {tag!r} for {name}", did_you_mean(tag, tags) or f"known: {', '.join(tags)}")
        )


def _create(timm: ModuleType, options: TimmOptions, classes: int, preprocessing: Preprocessing) -> Any:
    config = timm.get_pretrained_cfg(options.arch)
    size = preprocessing.image_size
    fixed = {"img_size": size} if config is not None and config.fixed_input_size else {}
    pretrained = options.weights == "pretrained"
    if pretrained and not (config and config.has_weights):
        raise CheckpointError(
            Problem(f"timm has no pretrained weights for {options.arch}", 'set weights = "none", or name a file')
        )
    try:
        return timm.create_model(
            options.arch, pretrained=pretrained, num_classes=classes, **_channels(preprocessing), **fixed
        )
    except OSError as error:
        raise CheckpointError(
            Problem(
                f"weights of {options.arch} cannot be downloaded: {first_line(error)}",
                f"fetch {config.hf_hub_id or config.url} elsewhere and name the file: "
                'weights = "path/to/model.safetensors"',
            )
        ) from error
    except (AssertionError, TypeError, ValueError) as error:
        if not fixed:
            raise
        own = config.input_size[-1]
        raise RecipeError(
            Problem(
                f"{options.arch} does not take images of {size_in_words(size)} px: {first_line(error)}",
                f"it was made for {own} px: set image_size = {own}",
            )
        ) from error


def _channels(preprocessing: Preprocessing) -> dict[str, int]:
    """What timm needs to know of other images than of colours; it sums pretrained weights itself."""
    return {} if preprocessing.channels == 3 else {"in_chans": preprocessing.channels}


def _heads(model: nn.Module, classes: int) -> set[str]:
    """The modules that give the logits; distilled networks have two."""
    named = getattr(model, "pretrained_cfg", {}).get("classifier")
    return {named} if isinstance(named, str) else set(named or [find_head(model, classes)])
