"""The main job as one would write it by hand, without edgeopt: the other side of `benchmarks/overhead.py`.

Digits at 64 px, MobileNetV3-small, ten float epochs, two epochs of quantization-aware training with the tools that
torchao and ExecuTorch offer, an int8 `.pte` and an int8 `.onnx`, each opened in its runtime and scored on the test
images.

    python benchmarks/plain_script.py FOLDER
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgeopt_torchvision.compat import import_torchvision  # beside some builds of torch it only imports this way

IMAGE_SIZE, BATCH_SIZE, EPOCHS, QAT_EPOCHS = 64, 64, 10, 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_images() -> tuple[torch.Tensor, torch.Tensor]:
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = []
    for digit in digits.images:
        upright = Image.fromarray((digit * 255 / 16).astype(np.uint8)).convert("RGB")
        images.append(np.asarray(upright.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)))
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    return pixels.contiguous(), torch.from_numpy(digits.target).long()


def accuracy(predict: object, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    right = 0
    with torch.no_grad():
        for start in range(0, len(inputs), 32):
            right += int((predict(inputs[start : start + 32]).argmax(1) == labels[start : start + 32]).sum())
    return right / len(inputs)


def fit(
    model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, epochs: int, rate: float, *, one_cycle: bool
) -> None:
    steps = epochs * (len(inputs) // BATCH_SIZE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-2)
    schedule = (
        torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
        if one_cycle
        else torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    )
    for _ in range(epochs):
        order = torch.randperm(len(inputs))
        for step in range(len(inputs) // BATCH_SIZE):
            chosen = order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
            batch = inputs[chosen].contiguous(memory_format=torch.channels_last)
            loss = nn.functional.cross_entropy(model(batch), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(17)
    inputs, labels = load_images()
    order = torch.randperm(len(inputs))
    test, validation, train = order[:270], order[270:540], order[540:]

    torchvision = import_torchvision()
    model = torchvision.models.mobilenet_v3_small(num_classes=10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    model = model.to(memory_format=torch.channels_last).train()
    fit(model, inputs[train], labels[train], EPOCHS, 3e-3, one_cycle=True)
    model.eval()
    print(f"float, validation: {accuracy(model, inputs[validation], labels[validation]):.4f}")
    print(f"float, test: {accuracy(model, inputs[test], labels[test]):.4f}")

    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import to_edge_transform_and_lower
    from torchao.quantization.pt2e import move_exported_model_to_eval, move_exported_model_to_train
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e

    model = model.to(memory_format=torch.contiguous_format)
    example = (inputs[:2],)
    batch = torch.export.Dim("batch", min=1, max=1024)
    captured = torch.export.export(copy.deepcopy(model).train(), example, dynamic_shapes=({0: batch},)).module()
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_qat=True))
    prepared = prepare_qat_pt2e(captured, quantizer)
    move_exported_model_to_train(prepared)
    fit(prepared, inputs[train], labels[train], QAT_EPOCHS, 5e-4, one_cycle=False)
    move_exported_model_to_eval(prepared)
    converted = convert_pt2e(prepared)
    print(f"int8 program, validation: {accuracy(converted, inputs[validation], labels[validation]):.4f}")
    print(f"int8 program, test: {accuracy(converted, inputs[test], labels[test]):.4f}")

    pte, onnx = folder / "model.pte", folder / "model.onnx"
    single = torch.export.export(converted, (inputs[:1],))
    lowered = to_edge_transform_and_lower(single, partitioner=[XnnpackPartitioner()]).to_executorch()
    pte.write_bytes(lowered.buffer)
    torch.onnx.export(
        converted, example, onnx, dynamo=True, dynamic_shapes=({0: batch},), input_names=["input"], verbose=False
    )

    from executorch.extension.pybindings.portable_lib import _load_for_executorch

    runtime = _load_for_executorch(str(pte))
    rows = [runtime.forward([image[None]])[0] for image in inputs[test]]
    print(f"pte, test: {(torch.cat(rows).argmax(1) == labels[test]).double().mean().item():.4f}")

    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    logits = session.run(None, {session.get_inputs()[0].name: inputs[test].numpy()})[0]
    print(f"onnx, test: {(torch.from_numpy(logits).argmax(1) == labels[test]).double().mean().item():.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
