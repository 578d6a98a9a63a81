"""Bytes, layers and milliseconds of a ResNet-18 of float, eight-bit and four-bit weights, in each runtime that takes
it.

    python benchmarks/four_bits.py [--size 64]

The weights are random: bytes and milliseconds do not depend on them. Ends with 1 where the four-bit ONNX file has more
than 0.6 times the bytes of the int8 one.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import get_symmetric_quantization_config
from torch.export import ExportedProgram

from edgeopt.export.predictor import FilePredictor
from edgeopt.networks.bits import layer_bits
from edgeopt.networks.capture import capture, export_program
from edgeopt_executorch.quantizer import XnnpackQuantizer
from edgeopt_onnx.conversion import export_onnx
from edgeopt_onnx.predictor import OnnxPredictor
from edgeopt_torchao.quantize.convert import convert
from edgeopt_torchao.quantize.prepare import calibrate, prepare_ptq
from edgeopt_torchvision.compat import import_torchvision

_LARGEST_RATIO = 0.6
_BATCHES = (1, 64)


def quantized(program: ExportedProgram, weight_bits: int, images: torch.Tensor) -> ExportedProgram:
    """`program` with weights of so many bits and activations of eight."""
    config = get_symmetric_quantization_config(is_per_channel=True)
    half = 2 ** (weight_bits - 1) - 1
    config = replace(config, weight=replace(config.weight, quant_min=-half, quant_max=half))
    prepared = prepare_ptq(program, XnnpackQuantizer().set_global(config))
    calibrate(prepared, [images])
    return export_program(convert(prepared), images, _BATCHES)


def milliseconds(predictor: FilePredictor, image: torch.Tensor, calls: int = 100) -> float:
    """The fastest of some calls."""
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        predictor.predict(image.numpy())
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def main() -> int:
    """Prints the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    size = parser.parse_args().size
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    images = torch.randn(16, 3, size, size)
    program = capture(import_torchvision().models.resnet18(num_classes=10), images, _BATCHES)
    programs = {"float": program, "int8": quantized(program, 8, images), "int4": quantized(program, 4, images)}
    sizes = {}
    print(f"ResNet-18, {size} px, {len(layer_bits(program))} layers, 1 thread")
    with tempfile.TemporaryDirectory() as folder:
        for name, each in programs.items():
            report = export_onnx(each, Path(folder) / f"{name}.onnx", card_json="{}")
            sizes[name] = report.size_bytes
            with OnnxPredictor(report.path, threads=1) as predictor:
                took = milliseconds(predictor, images[:1])
            fused = f"{report.fused_layers} of {report.weighted_layers} layers in integers"
            print(f"onnx    {name:6} {report.size_bytes:>10} bytes {took:7.2f} ms  {fused}")
    ratio = sizes["int4"] / sizes["int8"]
    print(f"the four-bit ONNX file has {ratio:.2f} times the bytes of the int8 one")
    return int(ratio > _LARGEST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
