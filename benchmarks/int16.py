"""What activations of sixteen bits ("16x8") save where a network gives numbers, and which runtime computes in them.

    python benchmarks/int16.py [--epochs 12] [--images 3000] [--only regression|runtimes]

Two regressions on generated images: the angle of a bar (that of `examples/edgeopt-angle-plugin`), and the box of a
rectangle, in px. One network each, trained in float, then quantized after training with activations of eight and of
sixteen bits. Every file is a `.tflite` opened in LiteRT, one thread. "beside float" is the mean distance of its answers
from those of the float file, which is what the quantization costs; "beside w8" that from the float network with weights
of eight bits, which is what the rounding of activations costs by itself.

`runtimes` hands four convolutions with rounding between them, in float, int8 and int16, to ONNX Runtime and to OpenVINO,
and prints the kernels that they take. Ends with 1 where activations of sixteen bits cost more than a 16th of those of
eight.
"""

from __future__ import annotations

import argparse
import copy
import logging
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from bars import Bar, finish
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram

from edgeopt.export.make import make_artifact
from edgeopt.networks.capture import capture, export_program
from edgeopt.plugins import Bits, ExporterPlugin, Form, ModelState, QuantizerPlugin, Role
from edgeopt.plugins.registry import load_registry
from edgeopt.preprocessing import Preprocessing
from edgeopt.progress import Silent
from edgeopt.recipe.lookup import resolve
from edgeopt.tasks.numbers import Numbers
from edgeopt.testing import tiny_data
from edgeopt_tflite.predictor import TflitePredictor
from edgeopt_torchao.bits.probes import round_weight
from edgeopt_torchao.bits.rules import BitRules, target_of
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq

SIZE = 48
_TESTED, _CALIBRATION = 500, 1000
_BATCHES = (1, 64)
_SHARE = 1 / 16  # there are 256 times the integers, of which a ReLU leaves half around zero, and half is room
_EXAMPLE = Path(__file__).parents[1] / "examples" / "edgeopt-angle-plugin" / "src"
Answers = NDArray[np.float64]


@dataclass(frozen=True)
class Regression:
    """Images, float32 (n, 1, 48, 48), what a network should give for them, and how far two answers are apart."""

    name: str
    images: Tensor
    targets: Tensor
    apart: Callable[[Answers, Answers], Answers]


def bars(count: int) -> Regression:
    """Cosine and sine of twice the angle of a bar; distances are degrees."""
    sys.path.insert(0, str(_EXAMPLE))
    from edgeopt_angle.answers import angles
    from edgeopt_angle.bars import RotatedBars

    drawn = RotatedBars(count, noise=0.1, seed=0)
    twice = torch.from_numpy(np.radians(2 * drawn.angles)).float()

    def apart(one: Answers, other: Answers) -> Answers:
        turned = np.abs(angles([one]) - angles([other]))
        return np.minimum(turned, 180 - turned)

    images = np.stack([drawn[index] for index in range(count)])
    return Regression("angle, degrees", _normalized(images), torch.stack([twice.cos(), twice.sin()], 1), apart)


def boxes(count: int) -> Regression:
    """Left, top, right and bottom of a rectangle on a noisy ground, as shares; distances are px, mean of the four."""
    random = np.random.default_rng(0)
    edges = np.sort(random.uniform(2, SIZE - 2, (count, 2, 2)), axis=2)
    edges[..., 1] = np.minimum(edges[..., 1] + 4, SIZE - 1)
    along = np.arange(SIZE) + 0.5
    inside = [(along >= edges[:, axis, :1]) & (along < edges[:, axis, 1:]) for axis in (0, 1)]
    images = 70 + 110 * (inside[1][:, :, None] & inside[0][:, None, :]) + random.normal(0, 25, (count, SIZE, SIZE))
    targets = torch.from_numpy(edges.transpose(0, 2, 1).reshape(count, 4) / SIZE).float()
    return Regression(
        "box, px", _normalized(images), targets, lambda one, other: np.abs(one - other).mean(axis=1) * SIZE
    )


def _normalized(images: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy((images.clip(0, 255) / 255 - 0.5) / 0.25).float()[:, None]


def trained(task: Regression, epochs: int) -> nn.Module:
    """Three convolutions with BatchNorm, a narrow one, and a linear layer that sees where something is."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in pairwise((1, 16, 32, 64)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    outputs = task.targets.shape[1]
    net = nn.Sequential(*layers, nn.Conv2d(64, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * (SIZE // 8) ** 2, outputs))
    images, targets = task.images[_TESTED:], task.targets[_TESTED:]
    steps = epochs * (len(images) // 32)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        if step % (len(images) // 32) == 0:
            order = torch.randperm(len(images))
        chosen = order[step % (len(images) // 32) * 32 :][:32]
        optimizer.zero_grad()
        (net(images[chosen]) - targets[chosen]).square().sum(1).mean().backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def quantized(net: nn.Module, images: Tensor, activation_bits: int) -> ExportedProgram:
    """The program of `ptq` with weights of eight bits."""
    use = resolve(QuantizerPlugin, "xnnpack", {}, load_registry())
    target = target_of(use, BitRules(Bits(8, activation_bits)), qat=False)
    prepared = prepare_ptq(capture(net, images[:2], _BATCHES), target.quantizer)
    calibrate(prepared, list(images.split(64)))
    return export_program(convert(prepared), images[:2], _BATCHES)


def with_rounded_weights(net: nn.Module) -> nn.Module:
    """The network in float with the weights of the quantized ones; what folds into a channel does not change them."""
    rounded = copy.deepcopy(net)
    for layer in rounded.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.data = round_weight(layer.weight.detach(), 8, 0)
    return rounded


def answers(program: ExportedProgram, precision: str, images: Tensor, folder: Path) -> tuple[Answers, int, float]:
    """What the `.tflite` file gives, its bytes, and the milliseconds of its fastest call."""
    preprocessing = Preprocessing(SIZE, SIZE, SIZE, (0.5,), (0.25,), channel_order="grey")
    state = ModelState(program, Form.PROGRAM, Numbers(), (), preprocessing, precision)
    artifact = make_artifact(
        resolve(ExporterPlugin, "tflite", {}, load_registry()),
        replace(state, output_names=("numbers",)),
        folder,
        role=Role.OPTIMIZED,
        recipe={"name": "int16"},
        calibration=tiny_data(image_size=SIZE, channels=1).calibration,
        progress=Silent(),
        seed=0,
        has_self_test=False,
    )
    times = []
    with TflitePredictor(artifact.path, threads=1) as predictor:
        given = predictor.predict(images.numpy())[0].astype(np.float64)
        for _ in range(200):
            start = time.perf_counter()
            predictor.predict(images[:1].numpy())
            times.append(time.perf_counter() - start)
    return given, artifact.size_bytes, min(times) * 1e3


def regressions(count: int, epochs: int) -> list[Bar]:
    """Prints a line for each file; returns the bars."""
    found = []
    print(f"{'':16}{'':>9}{'error':>8}{'beside float':>14}{'farthest':>10}{'beside w8':>11}{'bytes':>9}{'ms':>8}")
    for task in (bars(count), boxes(count)):
        net, tested = trained(task, epochs), task.images[:_TESTED]
        truth = task.targets[:_TESTED].numpy().astype(np.float64)
        calibration = task.images[_TESTED:][:_CALIBRATION]
        programs = {
            "float32": capture(net, tested[:2], _BATCHES),
            "int8": quantized(net, calibration, 8),
            "16x8": quantized(net, calibration, 16),
        }
        reference: Answers | None = None
        with torch.no_grad():
            weights_alone = with_rounded_weights(net)(tested).numpy().astype(np.float64)
        cost: dict[str, float] = {}
        for precision, program in programs.items():
            with tempfile.TemporaryDirectory() as folder:
                given, size, took = answers(program, precision, tested, Path(folder))
            reference = given if reference is None else reference
            error, moved = task.apart(given, truth).mean(), task.apart(given, reference)
            cost[precision] = float(task.apart(given, weights_alone).mean())
            told = f"{moved.mean():14.4f}{moved.max():10.4f}{cost[precision]:11.4f}{size:9}{took:8.3f}"
            print(f"{task.name:16}{precision:>9}{error:8.3f}{told}", flush=True)
        found.append(Bar(f"{task.name}: cost of 16-bit activations, of 8-bit", cost["16x8"] / cost["int8"], _SHARE))
    return found


# ---- what other runtimes do with int16 -----------------------------------------------------------------------------


def chain(dtype: str, channels: int = 64, size: int = 56) -> bytes:
    """Four convolutions as ONNX: in float, or with int8 weights and activations that are rounded to `dtype`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random, nodes, constants = np.random.default_rng(0), [], []

    def constant(name: str, value: NDArray[np.generic]) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def rounded(value: str, index: int) -> str:
        if dtype == "float32":
            return value
        scale = constant(f"scale{index}", np.array(4.0 / np.iinfo(dtype).max, np.float32))
        zero = constant(f"zero{index}", np.array(0, dtype))
        nodes.append(helper.make_node("QuantizeLinear", [value, scale, zero], [f"q{index}"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"q{index}", scale, zero], [f"d{index}"]))
        return f"d{index}"

    value = rounded("input", 0)
    for index in range(1, 5):
        integers = random.integers(-127, 128, (channels, channels, 3, 3)).astype(np.int8)
        if dtype == "float32":
            weight = constant(f"w{index}", integers.astype(np.float32) * np.float32(2e-4))
        else:
            steps = constant(f"steps{index}", np.full(channels, 2e-4, np.float32))
            given = [constant(f"w{index}", integers), steps, constant(f"zeros{index}", np.zeros(channels, np.int8))]
            weight = f"wd{index}"
            nodes.append(helper.make_node("DequantizeLinear", given, [weight], axis=0))
        nodes.append(helper.make_node("Conv", [value, weight], [f"conv{index}"], pads=[1, 1, 1, 1]))
        value = rounded(f"conv{index}", index)
    shape = [1, channels, size, size]
    given, returned = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", value))
    graph = helper.make_graph(nodes, "chain", [given], [returned], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def runtimes() -> None:
    """Prints milliseconds and kernels, one thread."""
    import onnx
    import onnxruntime
    import openvino

    image = np.random.default_rng(1).standard_normal((1, 64, 56, 56)).astype(np.float32)
    print(f"{'runtime':14}{'activations':13}{'ms':>7}  kernels of the graph that the runtime makes")
    for dtype in ("float32", "int8", "int16"):
        with tempfile.TemporaryDirectory() as folder:
            optimized = Path(folder) / "optimized.onnx"
            settings = onnxruntime.SessionOptions()
            settings.intra_op_num_threads, settings.log_severity_level = 1, 3
            settings.optimized_model_filepath = str(optimized)
            session = onnxruntime.InferenceSession(chain(dtype), settings, providers=["CPUExecutionProvider"])
            kinds = Counter(node.op_type for node in onnx.load(optimized).graph.node)
        _line("ONNX Runtime", dtype, partial(session.run, None, {"input": image}), kinds)
        properties = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        opened = openvino.Core().compile_model(openvino.Core().read_model(chain(dtype)), "CPU", properties)
        asked = opened.create_infer_request()
        said = [node.get_rt_info() for node in opened.get_runtime_model().get_ordered_ops()]
        kinds = Counter(
            each["primitiveType"].astype(str) for each in said if each["layerType"].astype(str) not in _ENDS
        )
        _line("OpenVINO", dtype, partial(asked.infer, [image]), kinds)


_ENDS = ("Const", "Input", "Output")


def _line(runtime: str, dtype: str, call: Callable[[], object], kinds: Counter[str]) -> None:
    times = []
    for _ in range(30):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    print(f"{runtime:14}{dtype:13}{min(times) * 1e3:7.2f}  {told}", flush=True)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12, help="epochs in float")
    parser.add_argument("--images", type=int, default=3000, help="images of each task, 500 of which are tested on")
    parser.add_argument("--only", choices=("regression", "runtimes"), help="one table")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if options.only != "regression":
        runtimes()
    finish(*(regressions(options.images, options.epochs) if options.only != "runtimes" else ()))


if __name__ == "__main__":
    main()
