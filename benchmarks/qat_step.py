"""What a quantization-aware training step costs, beside a float step and a step of a plain PT2E loop.

MobileNetV3-small, channels-last, AdamW: the four kinds of step take turns within one run, so that whatever else the
machine does falls on all of them; what is compared are medians. Compiling takes minutes and is not part of a step.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn
from torchao.quantization.pt2e import move_exported_model_to_train
from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

from edgeopt.networks.capture import capture
from edgeopt_executorch.quantizer import build_xnnpack
from edgeopt_torchao.quantize.prepare import prepare_qat
from edgeopt_torchvision.compat import import_torchvision

Step = Callable[[], None]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=30, help="timed steps of each kind")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    images = torch.randn(arguments.batch, 3, arguments.image_size, arguments.image_size)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(10, (arguments.batch,))

    def step_of(model: nn.Module, forward: Callable[[torch.Tensor], torch.Tensor]) -> Step:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(forward(images), labels).backward()
            optimizer.step()

        return step

    model = import_torchvision().models.mobilenet_v3_small(num_classes=10)
    program = capture(model, images, (1, 1024))
    quantizer = build_xnnpack(per_channel=True, qat=True)
    float_model = model.train().to(memory_format=torch.channels_last)
    plain = plain_pt2e(model, images).to(memory_format=torch.channels_last)
    ours = prepare_qat(program, quantizer).to(memory_format=torch.channels_last)
    compiled = prepare_qat(program, quantizer).to(memory_format=torch.channels_last)
    steps = {
        "float": step_of(float_model, float_model),
        "plain PT2E": step_of(plain, plain),
        "edgeopt": step_of(ours, ours),
        "edgeopt, compiled": step_of(compiled, torch.compile(compiled)),
    }
    milliseconds = take_turns(steps, arguments.rounds)

    medians = {name: statistics.median(times) for name, times in milliseconds.items()}
    print(f"MobileNetV3-small, batch {arguments.batch}, {arguments.image_size} px, {arguments.threads} threads")
    print(f"{'step':<20}{'median ms':>10}{'p90 ms':>10}{'of float':>10}")
    for name, times in milliseconds.items():
        p90 = statistics.quantiles(times, n=10)[-1]
        print(f"{name:<20}{medians[name]:>10.1f}{p90:>10.1f}{medians[name] / medians['float']:>10.2f}")
    bars = [
        ("qat-step-against-plain-pt2e", medians["edgeopt"] / medians["plain PT2E"], 1.05),
        ("compiled-qat-step-against-float", medians["edgeopt, compiled"] / medians["float"], 1.75),
    ]
    for name, figure, limit in bars:
        print(f"bar {name}: {figure:.2f} (limit {limit:.2f})")
    return int(any(figure > limit for _, figure, limit in bars))


def plain_pt2e(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """The model prepared as torchao's own tutorial does it."""
    batch = torch.export.Dim("batch", min=2, max=1024)
    captured = torch.export.export(model.train(), (images[:2].contiguous(),), dynamic_shapes=({0: batch},)).module()
    prepared = prepare_qat_pt2e(captured, build_xnnpack(per_channel=True, qat=True))
    return move_exported_model_to_train(prepared)


def take_turns(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of `rounds` steps of each kind, in turn, after three of each to warm up."""
    for name, step in steps.items():
        started = time.perf_counter()
        for _ in range(3):
            step()
        print(f"warmed up: {name}, {time.perf_counter() - started:.0f} s", file=sys.stderr)
    milliseconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            milliseconds[name].append(1e3 * (time.perf_counter() - started))
    return milliseconds


if __name__ == "__main__":
    sys.exit(main())
