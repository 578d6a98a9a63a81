"""Ways in which people write networks, each in one of three layers, through `ptq` to ExecuTorch, ONNX Runtime and
LiteRT.

Papers' architectures are in `model_matrix.py`; here are the poolings, activations, reshapes and joins of everybody's
own. For each, the float and the int8 file are opened in their runtime and compared with the program that they were made
from. Ends with a table, the reasons of what was refused, and the bars: what fails must be refused with a reason that a
user can act on.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from bars import Bar, finish
from rich.console import Console
from rich.progress import track
from rich.table import Table
from stripes import CLASSES, stripes
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from edgeopt.errors import UserError
from edgeopt.measure.answers import feeder, file_outputs
from edgeopt.networks.capture import program_outputs, to_program
from edgeopt.networks.tracing import quick_tracing
from edgeopt.plugins.declarations import ExporterPlugin, PassPlugin
from edgeopt.plugins.registry import load_registry
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import resolve
from edgeopt.tasks import TASKS
from edgeopt.testing import pass_context
from edgeopt.testing.exporter import export_file
from edgeopt.types import Form, ModelState, TrainingData

RUNTIMES = {"executorch": "ExecuTorch", "onnx": "ONNX Runtime", "tflite": "LiteRT"}
CHANNELS = 8
TOLERANCE = {"float32": 1e-4, "int8": 0.03}  # of the logits' range

Body = Callable[[Tensor], Tensor]


class Network(nn.Module):
    """A convolution to 8 channels of 16 x 16, the idiom on `layers`, a convolution of any size, a head."""

    def __init__(self, body: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, 2, 1)
        self.layers = nn.ModuleList(layers)
        self.last = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.head = nn.Linear(CHANNELS, CLASSES)
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(functional.relu(self.stem(images)), *self.layers)
        return self.head(functional.relu(self.last(features)).mean((2, 3)))


class Tutorial(nn.Module):
    """LeNet as tutorials write it; `flat` is their way to its fully connected layers."""

    def __init__(self, flat: Body) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2 = nn.Linear(16 * 5 * 5, 32), nn.Linear(32, CLASSES)
        self.flat = flat

    def forward(self, images: Tensor) -> Tensor:
        features = functional.max_pool2d(functional.relu(self.conv1(images)), 2)
        features = functional.max_pool2d(functional.relu(self.conv2(features)), 2)
        return self.fc2(functional.relu(self.fc1(self.flat(features))))


class Standardized(nn.Conv2d):
    """A weight computed from the parameter on every call, https://arxiv.org/abs/1903.10520."""

    def forward(self, features: Tensor) -> Tensor:
        mean, spread = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return functional.conv2d(features, (self.weight - mean) / (spread + 1e-5), self.bias, padding=1)


class Scaled(nn.Module):
    """A factor for each channel, learned."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(1, CHANNELS, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        return self.gamma * features


def conv(inputs: int = CHANNELS, outputs: int = CHANNELS, size: int = 1, **options: int | str) -> nn.Conv2d:
    """A convolution, of one pixel where nothing else is said."""
    return nn.Conv2d(inputs, outputs, size, **options)


def after_conv(activation: Body) -> Callable[[], nn.Module]:
    """An activation behind a convolution."""
    return lambda: Network(lambda x, c: activation(c(x)), conv(size=3, padding=1))


def tokens(features: Tensor) -> Tensor:
    """Pixels as a sequence, (batch, pixels, channels)."""
    return features.flatten(2).transpose(1, 2)


def image(sequence: Tensor, like: Tensor) -> Tensor:
    """The sequence as an image again."""
    return sequence.transpose(1, 2).reshape(like.shape)


def channel_attention(x: Tensor, c: nn.Module) -> Tensor:
    """CBAM's first half, https://arxiv.org/abs/1807.06521."""
    pooled = c(functional.adaptive_avg_pool2d(x, 1)) + c(functional.adaptive_max_pool2d(x, 1))
    return x * torch.sigmoid(pooled)


def spatial_attention(x: Tensor, c: nn.Module) -> Tensor:
    """CBAM's second half."""
    return x * torch.sigmoid(c(torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)))


def split_and_joined(x: Tensor, c: nn.Module) -> Tensor:
    """As ShuffleNet does."""
    first, second = x.chunk(2, 1)
    return functional.channel_shuffle(torch.cat([first, c(second)], 1), 2)


def generalized_mean(x: Tensor) -> Tensor:
    """Pooling between the mean and the maximum, https://arxiv.org/abs/1711.02512, as a gate."""
    pooled = functional.avg_pool2d(x.clamp(min=1e-6).pow(3), x.shape[-2:])
    return x * pooled.pow(1 / 3)


def one_head(x: Tensor, c: nn.Module) -> Tensor:
    """Attention without a dimension for heads."""
    return x + image(functional.scaled_dot_product_attention(*map(tokens, c(x).chunk(3, 1))), x)


def self_attention(x: Tensor, attention: nn.Module) -> Tensor:
    """PyTorch's own layer."""
    sequence = tokens(x)
    return x + image(attention(sequence, sequence, sequence, need_weights=False)[0], x)


F = functional
IDIOMS: Mapping[str, Callable[[], nn.Module]] = {
    "x.view(-1, 400)": lambda: Tutorial(lambda x: x.view(-1, 400)),
    "x.view(x.size(0), -1)": lambda: Tutorial(lambda x: x.view(x.size(0), -1)),
    "x.reshape(len(x), -1)": lambda: Tutorial(lambda x: x.reshape(x.shape[0], -1)),
    "torch.flatten(x, 1)": lambda: Tutorial(lambda x: torch.flatten(x, 1)),
    "max_pool2d(x, 2)": lambda: Network(lambda x: F.max_pool2d(x, 2)),
    "max_pool2d, ceil_mode": lambda: Network(lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True)),
    "avg_pool2d(x, 2)": lambda: Network(lambda x: F.avg_pool2d(x, 2)),
    "avg_pool2d, padded": lambda: Network(lambda x: F.avg_pool2d(x, 3, 1, 1)),
    "avg_pool2d, padding not counted": lambda: Network(lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)),
    "avg_pool2d, ceil_mode": lambda: Network(lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True)),
    "adaptive_avg_pool2d(x, 4)": lambda: Network(lambda x: F.adaptive_avg_pool2d(x, 4)),
    "adaptive_max_pool2d(x, 1)": lambda: Network(lambda x: x * F.adaptive_max_pool2d(x, 1)),
    "leaky_relu": after_conv(lambda x: F.leaky_relu(x, 0.1)),
    "PReLU": lambda: Network(lambda x, c, p: p(c(x)), conv(), nn.PReLU(CHANNELS)),
    "elu": after_conv(F.elu),
    "gelu": after_conv(F.gelu),
    "silu": after_conv(F.silu),
    "mish": after_conv(F.mish),
    "softplus": after_conv(F.softplus),
    "tanh": after_conv(torch.tanh),
    "hardtanh": after_conv(F.hardtanh),
    "clamp(0, 3)": after_conv(lambda x: x.clamp(0, 3)),
    "clamp(min=0)": after_conv(lambda x: x.clamp(min=0)),
    "clamp(max=0.5)": after_conv(lambda x: x.clamp(max=0.5)),
    "x * sigmoid(c(x))": lambda: Network(lambda x, c: x * torch.sigmoid(c(x)), conv()),
    "x - c(x)": lambda: Network(lambda x, c: x - c(x), conv()),
    "c(x) * 0.5 + 0.1": after_conv(lambda x: x * 0.5 + 0.1),
    "layer scale": lambda: Network(lambda x, c, g: x + g(c(x)), conv(), Scaled()),
    "division by a mean": lambda: Network(lambda x, c: c(x) / (x.abs().mean((1, 2, 3), keepdim=True) + 1), conv()),
    "normalize over channels": after_conv(lambda x: F.normalize(x, dim=1)),
    "GroupNorm": lambda: Network(lambda x, c, n: n(c(x)), conv(), nn.GroupNorm(2, CHANNELS)),
    "InstanceNorm2d": lambda: Network(lambda x, c, n: n(c(x)), conv(), nn.InstanceNorm2d(CHANNELS, affine=True)),
    "LayerNorm, channels last": lambda: Network(
        lambda x, c, n: n(c(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2), conv(), nn.LayerNorm(CHANNELS)
    ),
    "BatchNorm before a convolution": lambda: Network(
        lambda x, n, c: c(F.relu(n(x))), nn.BatchNorm2d(CHANNELS), conv()
    ),
    "ConvTranspose2d": lambda: Network(lambda x, c: F.relu(c(x)), nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2)),
    "dilation": lambda: Network(lambda x, c: F.relu(c(x)), conv(size=3, padding=2, dilation=2)),
    "depthwise, two a channel": lambda: Network(
        lambda x, d, c: c(d(x)), conv(outputs=16, size=3, padding=1, groups=CHANNELS), conv(16)
    ),
    "groups": lambda: Network(lambda x, c: c(x), conv(size=3, padding=1, groups=2)),
    "reflected padding": lambda: Network(lambda x, c: c(x), conv(size=3, padding=1, padding_mode="reflect")),
    "padding on one side": lambda: Network(lambda x, c: c(F.pad(x, (0, 1, 0, 1))), conv(size=3, stride=2)),
    "interpolate, nearest": lambda: Network(lambda x, c: c(F.interpolate(x, scale_factor=2)), conv()),
    "interpolate, bilinear": lambda: Network(
        lambda x, c: c(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)), conv()
    ),
    "pixel_shuffle": lambda: Network(lambda x, c: F.pixel_shuffle(c(x), 2), conv(outputs=32)),
    "pixel_unshuffle": lambda: Network(lambda x, c: c(F.pixel_unshuffle(x, 2)), conv(32)),
    "cat": lambda: Network(lambda x, c, d: d(torch.cat([x, c(x)], 1)), conv(), conv(16)),
    "chunk and channel_shuffle": lambda: Network(split_and_joined, conv(4, 4)),
    "x[:, :, ::2, ::2]": lambda: Network(lambda x, c: c(x[:, :, ::2, ::2]), conv()),
    "glu": lambda: Network(lambda x, c: F.glu(c(x), 1), conv(outputs=16)),
    "roll": lambda: Network(lambda x, c: c(torch.roll(x, (1, 1), (2, 3))), conv()),
    "flip": lambda: Network(lambda x, c: c(x.flip(3)), conv()),
    "MultiheadAttention": lambda: Network(self_attention, nn.MultiheadAttention(CHANNELS, 2, batch_first=True)),
    "attention of one head": lambda: Network(one_head, conv(outputs=24)),
    "squeeze and excitation": lambda: Network(
        lambda x, r, e: x * torch.sigmoid(e(F.relu(r(F.adaptive_avg_pool2d(x, 1))))), conv(outputs=4), conv(4)
    ),
    "the same with Linear": lambda: Network(
        lambda x, r, e: x * torch.sigmoid(e(F.relu(r(x.mean((2, 3))))))[:, :, None, None],
        nn.Linear(CHANNELS, 4),
        nn.Linear(4, CHANNELS),
    ),
    "channel attention": lambda: Network(channel_attention, conv()),
    "spatial attention": lambda: Network(spatial_attention, conv(2, 1, 7, padding=3)),
    "einsum": lambda: Network(lambda x, c: torch.einsum("bchw,bcd->bdhw", x, c(x).flatten(2)[..., :8]), conv()),
    "where": lambda: Network(lambda x, c: torch.where(c(x) > 0, x, -x), conv()),
    "dropout": lambda: Network(lambda x, c, d: d(c(x)), conv(), nn.Dropout(0.2)),
    "Conv1d over pixels": lambda: Network(lambda x, c: c(x.flatten(2)).reshape(x.shape), nn.Conv1d(8, 8, 3, padding=1)),
    "weight standardization": lambda: Network(lambda x, c: c(x), Standardized(CHANNELS, CHANNELS, 3)),
    "weight_norm": lambda: Network(lambda x, c: c(x), parametrizations.weight_norm(conv())),
    "spectral_norm": lambda: Network(lambda x, c: c(x), parametrizations.spectral_norm(conv())),
    "generalized mean": after_conv(generalized_mean),
    "a slice of channels": lambda: Network(lambda x, a, b: torch.cat([x, a(x)], 1)[:, 4:12] + b(x), conv(), conv()),
    "channels last": lambda: Network(
        lambda x, a, b: x + b(F.gelu(a(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2), nn.Linear(8, 16), nn.Linear(16, 8)
    ),
    "mixing of pixels": lambda: Network(lambda x, a: x + a(x.flatten(2)).reshape(x.shape), nn.Linear(256, 256)),
    "RMSNorm": lambda: Network(lambda x, n: n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.RMSNorm(CHANNELS)),
    "GRU over rows": lambda: Network(
        lambda x, r: x * r(x.mean(3).transpose(1, 2))[0].transpose(1, 2).unsqueeze(3), nn.GRU(8, 8, batch_first=True)
    ),
    "one block, called twice": lambda: Network(
        lambda x, block: x + block(block(x)), nn.Sequential(conv(), nn.BatchNorm2d(CHANNELS), nn.ReLU())
    ),
    "unbind and stack": lambda: Network(lambda x, c: torch.stack(x.unbind(1), 1) + c(x), conv()),
    "log1p(exp(-|x|))": after_conv(lambda x: torch.log1p(torch.exp(-x.abs()))),
    "add_ and relu_": lambda: Network(lambda x, c: F.relu(c(x).add_(x), inplace=True), conv()),
}


@dataclass(frozen=True)
class Cell:
    """What came of one idiom in one file: the largest difference of a logit as a share of their range, or why there is
    no file.
    """

    idiom: str
    precision: str
    runtime: str
    difference: float = 0.0
    refused: str = ""
    bug: str = ""

    @property
    def agrees(self) -> bool:
        """Whether there is a file that computes what its program does."""
        return not (self.refused or self.bug) and self.difference <= TOLERANCE[self.precision]


def try_idiom(idiom: str, runtimes: Sequence[str] = tuple(RUNTIMES)) -> Iterator[Cell]:
    """Its float and its int8 file in each runtime."""
    torch.manual_seed(0)
    data = stripes((32, 32, 32), 32)
    state = ModelState(IDIOMS[idiom]().eval(), Form.MODULE, TASKS["classification"], data.classes, data.preprocessing)
    with tempfile.TemporaryDirectory() as folder, quick_tracing():
        for precision in TOLERANCE:
            (aside := Path(folder) / precision).mkdir()
            program = _program(state, precision, data, aside)
            for runtime in runtimes:
                try:
                    yield Cell(idiom, precision, runtime, _difference(program, runtime, data, aside))
                except UserError as error:
                    yield Cell(idiom, precision, runtime, refused=str(error))
                except Exception as error:  # what a user would be asked to report
                    yield Cell(idiom, precision, runtime, bug=f"{type(error).__name__}: {error}")


def _program(state: ModelState, precision: str, data: TrainingData, folder: Path) -> ModelState:
    if precision == "float32":
        return to_program(state, data.validation)
    quantize = resolve(PassPlugin, "ptq", {"batch_size": 8}, load_registry())
    return quantize.plugin.apply(state, quantize.options, pass_context(folder, data))


def _difference(program: ModelState, runtime: str, data: TrainingData, folder: Path) -> float:
    use = resolve(ExporterPlugin, runtime, {}, load_registry())
    (aside := folder / runtime).mkdir()
    file, _result = export_file(use, program, aside)
    expected = program_outputs(program, data.validation, Silent(), "program")[0]
    feed = feeder("values", data.preprocessing)
    logits = file_outputs(use.plugin.open(file, 1), data.validation, feed, Silent(), "file")[0]
    return float(np.abs(logits - expected).max() / max(float(np.ptp(expected)), 1e-12))


def _shown(cell: Cell) -> str:
    if cell.bug or cell.refused:
        return "bug" if cell.bug else "refused"
    return f"{100 * cell.difference:.1f} %" + ("" if cell.agrees else " wrong")


def main() -> None:
    """Tries all idioms, shows what came of them, and judges."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="idioms whose name contains one of these")
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=RUNTIMES)
    given = parser.parse_args()
    chosen = [name for name in IDIOMS if not given.only or any(part in name for part in given.only)]
    progress = track(chosen, "idioms", console=Console(stderr=True))
    cells = [cell for idiom in progress for cell in try_idiom(idiom, given.runtimes)]
    table = Table(
        "idiom", *(f"{RUNTIMES[runtime]} {precision}" for precision in TOLERANCE for runtime in given.runtimes)
    )
    for idiom in chosen:
        table.add_row(idiom, *(_shown(cell) for cell in cells if cell.idiom == idiom))
    console = Console(width=140)
    console.print(table)
    for cell in cells:
        if cell.refused or cell.bug:
            print(f"{cell.idiom}, {RUNTIMES[cell.runtime]} {cell.precision}: {cell.refused or cell.bug}")
    sys.stdout.flush()
    finish(
        Bar("share of the files that compute what their program does", _share(cells), 0.97, at_least=True),
        Bar("files that compute something else, or fail without a reason", sum(map(_is_bad, cells)), 0),
    )


def _share(cells: Sequence[Cell]) -> float:
    return sum(cell.agrees for cell in cells) / len(cells)


def _is_bad(cell: Cell) -> bool:
    return not cell.agrees and not cell.refused


if __name__ == "__main__":
    main()
