"""One turn of `benchmarks/exports.py`: an int8 `.pte` of MobileNetV3-small, made by edgeopt or by ExecuTorch's own calls.

    python benchmarks/pte_turn.py plain|edgeopt FILE

Prints the CPU seconds (user and system, of this process, one thread) from the quantized program to the written file, as
JSON with the logits of eight images. The network is seeded and untrained, and both sides quantize it by the same calls:
neither is counted. What is imported for the export itself is.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import torch
from torch import nn

from edgeopt.networks.tracing import quick_tracing
from edgeopt_torchvision.compat import import_torchvision

SIZE = 64
BATCH = torch.export.Dim("batch", min=1, max=1024)


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(count))


def quantized(*, fold_quantize: bool) -> nn.Module:
    """Static int8 by the calls of torchao's and ExecuTorch's pages."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    torch.manual_seed(0)
    model = import_torchvision().models.mobilenet_v3_small(num_classes=10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # one batch gives statistics with which signals, and so the logits, keep a range
    with torch.no_grad():
        model.train()(images(32))
    model.eval()
    captured = torch.export.export(model, (images(2),), dynamic_shapes=({0: BATCH},)).module()
    config = get_symmetric_quantization_config(is_per_channel=True)
    prepared = prepare_pt2e(captured, XNNPACKQuantizer().set_global(config))
    with torch.no_grad():
        prepared(images(32))
    return convert_pt2e(prepared, fold_quantize=fold_quantize)


def plain(path: Path) -> float:
    """CPU seconds of ExecuTorch's own calls."""
    model = quantized(fold_quantize=True)
    start = time.process_time()
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.export(model, (images(1),))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    path.write_bytes(lowered.buffer)
    return time.process_time() - start


def edgeopt(path: Path) -> float:
    """CPU seconds of the exporter, which starts from a program for any batch, as it lies in the store."""
    program = torch.export.export(quantized(fold_quantize=False), (images(2),), dynamic_shapes=({0: BATCH},))
    start = time.process_time()
    from edgeopt_executorch.lowering import export_executorch

    with quick_tracing():
        export_executorch(program, path, card_json="{}")
    return time.process_time() - start


def main(side: str, path: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    seconds = {"plain": plain, "edgeopt": edgeopt}[side](path)
    from edgeopt_executorch.predictor import ExecuTorchPredictor

    with ExecuTorchPredictor(path, threads=1) as predictor:
        logits = predictor.predict(images(8).numpy())[0]
    print(json.dumps({"cpu_s": seconds, "logits": logits.tolist()}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
