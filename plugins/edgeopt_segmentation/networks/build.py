"""Builds networks that give logits for each place of an image: two of torchvision's, and a small U-Net."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from edgeopt.networks.checkpoints import Loaded, load_state, read_checkpoint
from edgeopt.networks.heads import float_state, normalization_warnings, set_batch_norm_momentum, take_channels
from edgeopt.networks.outputs import require_outputs
from edgeopt.plugins import Json, ModelState, Preprocessing, RecipeError, TrainingData
from edgeopt_segmentation.networks.unet import UNet
from edgeopt_segmentation.options import SegmenterOptions
from edgeopt_torchvision.compat import import_torchvision
from edgeopt_torchvision.published import published_state

OUTPUT = "masks"
"""What the logits are called in files."""

_HEADS = {
    "lraspp_mobilenet_v3_large": ("classifier.low_classifier", "classifier.high_classifier"),
    "deeplabv3_mobilenet_v3_large": ("classifier.4",),
    "unet": ("head",),
}
"""The layers that give the logits: those of other classes stay as they were drawn."""


class Segmenter(nn.Module):
    """One of torchvision's networks, whose answer is the logits alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32 (n, classes, height, width), of float32 images (n, channels, height, width)."""
        logits: Tensor = self.network(images)["out"]
        return logits


def build(options: SegmenterOptions, data: TrainingData) -> ModelState:
    """A float network for the classes of `data`, its fresh layers drawn from torch's seeded generator.

    Raises `CheckpointError` where its weights cannot be had or do not fit, `RecipeError` where it does not take images
    of the data set's size.
    """
    import torch

    channels, classes = data.preprocessing.channels, len(data.classes)
    if problem := options.problem_of_size(*data.preprocessing.size):
        raise RecipeError(problem)
    if options.arch == "unet":
        network: nn.Module = UNet(channels, classes, options.width, options.depth)
        model, prefix = network, ""
    else:
        networks = import_torchvision().models.segmentation
        arguments = {"weights": None, "weights_backbone": None, "num_classes": classes}
        network = getattr(networks, options.arch)(**arguments)
        take_channels(network, channels)
        model, prefix = Segmenter(network), "network."
    facts: dict[str, Json] = {
        "arch": options.arch,
        "weights": options.weights,
        "batch_norms": set_batch_norm_momentum(model, options.batch_norm_momentum),
    }
    warnings: list[str] = []
    untrained: tuple[str, ...] = ()
    if options.weights != "none":
        loaded, warnings = _load(network, options, data.preprocessing)
        facts["loaded"] = str(loaded)
        untrained = tuple(prefix + name for name in loaded.untrained)
    state = float_state(model, data, facts, warnings)
    imports = ("edgeopt_torchvision.loaded", "edgeopt_segmentation.networks.build")  # the careful import comes first
    state = replace(state, imports=imports, untrained=untrained, output_names=(OUTPUT,))
    require_outputs(state, torch.zeros(2, *state.input_shape))
    return state


def _load(network: nn.Module, options: SegmenterOptions, preprocessing: Preprocessing) -> tuple[Loaded, list[str]]:
    """Fills a network with the weights that the recipe names, and what speaks against them here.

    Raises `CheckpointError` where they cannot be had or do not fit.
    """
    warnings: list[str] = []
    if options.checkpoint is not None:
        state = read_checkpoint(options.checkpoint, network.state_dict())
    else:
        weights = import_torchvision().models.get_model_weights(options.arch)[options.weights]
        state = published_state(options.arch, weights)
        transforms = weights.transforms()
        warnings = normalization_warnings(preprocessing, weights.name, transforms.mean, transforms.std)
    loaded = load_state(network, state, options.weights, _HEADS[options.arch])
    return loaded, [*warnings, *loaded.warnings]
