"""Networks that give logits for each place of an image: two of torchvision's, and a small U-Net."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from torch import Tensor, nn

from edgeopt.networks.checkpoints import load_checkpoint
from edgeopt.networks.heads import float_state, set_batch_norm_momentum, take_channels
from edgeopt.networks.outputs import require_outputs
from edgeopt.plugins import Json, ModelState, TrainingData
from edgeopt_segmentation.options import SegmenterOptions
from edgeopt_torchvision.compat import import_torchvision

OUTPUT = "masks"
"""What the logits are called in files."""

_LEVELS = 3  # of the U-Net below its first


class Segmenter(nn.Module):
    """One of torchvision's networks, whose answer is the logits alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32 (n, classes, height, width), of float32 images (n, channels, height, width)."""
        logits: Tensor = self.network(images)["out"]
        return logits


class UNet(nn.Module):
    """A U-Net with BatchNorm: three levels down and up, each joined with what was there before.

    Source: O. Ronneberger, P. Fischer and T. Brox, "U-Net", MICCAI 2015, arXiv:1505.04597; with padding, BatchNorm and
    bilinear upsampling, which XNNPACK computes as well: nearest values stay outside of it.
    """

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(_LEVELS + 1)]
        self.first = _two(channels, width)
        self.pool = nn.MaxPool2d(2)
        self.down = nn.ModuleList(_two(before, after) for before, after in pairwise(widths))
        self.enlarge = nn.Upsample(scale_factor=2, mode="bilinear")
        self.up = nn.ModuleList(
            _two(below + here, here) for below, here in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float32 (n, classes, height, width), of images whose sides are multiples of 8 px."""
        values = self.first(images)
        kept = []
        for level in self.down:
            kept.append(values)
            values = level(self.pool(values))
        for level, beside in zip(self.up, reversed(kept), strict=True):
            values = level(_joined(self.enlarge(values), beside))
        logits: Tensor = self.head(values)
        return logits


def _joined(values: Tensor, beside: Tensor) -> Tensor:
    import torch

    return torch.cat([values, beside], dim=1)


def _two(inputs: int, outputs: int) -> nn.Sequential:
    def one(before: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(before, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)

    return nn.Sequential(*one(inputs), *one(outputs))


def build(options: SegmenterOptions, data: TrainingData) -> ModelState:
    """A float network for the classes of `data`, its fresh layers drawn from torch's seeded generator.

    Raises `CheckpointError` where its weights cannot be had or do not fit, `RecipeError` where it does not take images
    of the data set's size.
    """
    import torch

    channels, classes = data.preprocessing.channels, len(data.classes)
    if options.arch == "unet":
        model: nn.Module = UNet(channels, classes, options.width)
    else:
        networks = import_torchvision().models.segmentation
        arguments = {"weights": None, "weights_backbone": None, "num_classes": classes}
        model = Segmenter(getattr(networks, options.arch)(**arguments))
        take_channels(model, channels)
    facts: dict[str, Json] = {
        "arch": options.arch,
        "weights": options.weights,
        "batch_norms": set_batch_norm_momentum(model, options.batch_norm_momentum),
    }
    warnings: list[str] = []
    untrained: tuple[str, ...] = ()
    if options.checkpoint is not None:
        within = model.network if isinstance(model, Segmenter) else model
        loaded = load_checkpoint(within, options.checkpoint, _heads(within, classes))
        prefix = "network." if isinstance(model, Segmenter) else ""
        facts["loaded"], warnings = str(loaded), list(loaded.warnings)
        untrained = tuple(prefix + name for name in loaded.untrained)
    state = float_state(model, data, facts, warnings)
    imports = ("edgeopt_torchvision.loaded", "edgeopt_segmentation.networks")  # the careful import comes first
    state = replace(state, imports=imports, untrained=untrained, output_names=(OUTPUT,))
    require_outputs(state, torch.zeros(2, *state.input_shape))
    return state


def _heads(model: nn.Module, classes: int) -> set[str]:
    """The layers that give the logits: 1x1 convolutions of as many channels as there are classes."""
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.out_channels == classes and module.kernel_size == (1, 1)
    }
