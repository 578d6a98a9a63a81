"""What a runtime's own tools make of a float model: the files that edgeopt's are measured against.

Each follows the tool's documentation and its defaults: int8 weights per output channel, static int8 activations.
"""

from __future__ import annotations

import copy
import hashlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from edgeopt.types import ModelState


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


def openvino_static(float_file: Path, images: Sequence[NDArray[np.float32]], path: Path) -> bool:
    """NNCF's `quantize` with its defaults, of a float IR of one image a call, saved as OpenVINO does by itself; False
    where NNCF is not installed, which edgeopt has no other use for.

    Source: https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html
    """
    if find_spec("nncf") is None:
        return False
    import nncf
    import openvino

    dataset = nncf.Dataset([each[:1] for each in images])
    openvino.save_model(nncf.quantize(openvino.Core().read_model(float_file), dataset), path)
    return True


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


def ncnn2int8(state: ModelState, card_json: str, path: Path) -> bool:
    """What the tool `ncnn2int8` makes of what pnnx writes, by a table with the scales of an int8 program; False where it
    is not on the PATH, as no wheel has it.

    Source: https://github.com/Tencent/ncnn/wiki/quantized-int8-inference
    """
    from edgeopt_ncnn.conversion import convert
    from edgeopt_ncnn.on_device import Param
    from edgeopt_ncnn.rewrites.integers import find_layers
    from edgeopt_ncnn.rewrites.traced import trace

    tool = shutil.which("ncnn2int8")
    if tool is None:
        return False
    traced = trace(state)
    graph, weights = convert(traced, half=False)
    graph.rename({"in0": "input", "out0": state.output_names[0]})
    table = []
    for each in find_layers(graph, weights, traced.layers):
        if each.rounding is not None:
            scales = " ".join(f"{1 / scale:.9g}" for scale in each.rounding.weight_scales)
            table += [f"{each.layer.name}_param_0 {scales}", f"{each.layer.name} {1 / each.rounding.input_scale:.9g}"]
    given = [path.with_suffix(f".float.{kind}") for kind in ("param", "bin", "table")]
    for file, content in zip(given, (graph.text().encode(), weights, "\n".join(table).encode()), strict=True):
        file.write_bytes(content)
    param, model, scales_file = map(str, given)
    subprocess.run([tool, param, model, path, path.with_suffix(".bin"), scales_file], check=True, capture_output=True)
    sha256 = hashlib.sha256(path.with_suffix(".bin").read_bytes()).hexdigest()
    path.write_bytes(Param(path.read_bytes(), card_json, sha256).content())
    for file in given:
        file.unlink()
    return True
