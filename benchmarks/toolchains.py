"""What a runtime's own tools make of a float model: the files that edgeopt's are measured against.

Each follows the tool's documentation and its defaults: int8 weights per output channel, static int8 activations.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


def onnx_static(float_file: Path, images: Sequence[NDArray[np.float32]], path: Path) -> None:
    """ONNX Runtime's `quantize_static` after its own preprocessing: QDQ, uint8 activations.

    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds: Iterator[dict[str, NDArray[np.float32]]] = iter([{"input": each[:1]} for each in images])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self._feeds, None)

    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(str(float_file), str(prepared))
    quantize_static(
        str(prepared),
        str(path),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()


def openvino_static(float_file: Path, images: Sequence[NDArray[np.float32]], path: Path) -> None:
    """NNCF's `quantize` with its defaults, of a float IR of one image a call, saved as OpenVINO does by itself.

    Source: https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html
    """
    import nncf
    import openvino

    dataset = nncf.Dataset([each[:1] for each in images])
    openvino.save_model(nncf.quantize(openvino.Core().read_model(float_file), dataset), path)


def tflite_static(float_file: Path, images: Sequence[NDArray[np.float32]], path: Path) -> None:
    """ai-edge-quantizer's full int8 of a float `.tflite`.

    Source: https://github.com/google-ai-edge/ai-edge-quantizer
    """
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    given = Interpreter(str(float_file)).get_input_details()[0]
    channels_last = given["shape"][-1] == 3
    order = (0, 2, 3, 1) if channels_last else (0, 1, 2, 3)
    feeds = [
        {given["name"].split(":")[0].removeprefix("serving_default_"): each[:1].transpose(order)} for each in images
    ]
    tool = quantizer.Quantizer(str(float_file), recipe.static_wi8_ai8())
    result = tool.quantize(tool.calibrate({"serving_default": feeds}))
    path.write_bytes(bytes(result.quantized_model))


def xnnpack_plain(model: torch.nn.Module, images: Sequence[NDArray[np.float32]], path: Path) -> None:
    """The script of ExecuTorch's own page on XNNPACK: export, prepare, calibrate, convert, lower.

    Source: https://docs.pytorch.org/executorch/stable/backends/xnnpack/xnnpack-quantization.html
    """
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import to_edge_transform_and_lower
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    example = (torch.from_numpy(images[0][:1]),)
    exported = torch.export.export(copy.deepcopy(model), example).module()
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(exported, quantizer)
    with torch.no_grad():
        for each in images:
            prepared(torch.from_numpy(each[:1]))
    converted = torch.export.export(convert_pt2e(prepared), example)
    lowered = to_edge_transform_and_lower(converted, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)
