"""Computes what a package of Core ML says, with torch, because Core ML itself is on Apple's systems alone.

Operators are those of the file, as coremltools reads them back; each does what its page says, and no more of them is
here than the networks of the tests have.
Source: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgeopt_coreml.graph_check import read_operators
from edgeopt_coreml.package import SPEC, WEIGHTS
from edgeopt_coreml.tools import coremltools

_TYPES = {
    "fp16": torch.float16,
    "fp32": torch.float32,
    "int32": torch.int32,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
Values = Mapping[str, Any]


class Interpreted:
    """An unpacked package, in the place of coremltools' `MLModel`: it takes and gives what that does."""

    def __init__(self, folder: Path) -> None:
        spec = coremltools.proto.Model_pb2.Model.FromString((folder / SPEC).read_bytes())
        self._inputs, self._outputs = spec.description.input, [each.name for each in spec.description.output]
        self._operators = read_operators(spec, (folder / WEIGHTS).parent)

    def predict(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs by their names, for the inputs by theirs; an image comes as Pillow's, all else as an array."""
        if given.keys() != {each.name for each in self._inputs}:
            raise RuntimeError(f"no input is called {', '.join(given)}")
        values = {each.name: _entering(each.type, given[each.name]) for each in self._inputs}
        with torch.no_grad():
            for operator in self._operators:
                self._run(operator, values)
        return {name: values[name].numpy() for name in self._outputs}

    def _run(self, operator: Any, values: dict[str, Any]) -> None:
        arguments = {
            name: [_value(one, values) for one in each] if isinstance(each, (list, tuple)) else _value(each, values)
            for name, each in operator.inputs.items()
            if each is not None
        }
        if operator.op_type == "const":
            values[operator.outputs[0].name] = operator.outputs[0].val
            return
        answers = OPERATORS[operator.op_type](arguments)
        for output, answer in zip(operator.outputs, answers if isinstance(answers, list) else [answers], strict=True):
            assert tuple(answer.shape) == tuple(output.shape), f"{operator.name}: {answer.shape} is not {output.shape}"
            # as a processor of this type may: each result is rounded to it
            values[output.name] = answer.to(_type_of(output))


def _entering(kind: Any, value: Any) -> Tensor:
    """An input, or an error where Core ML would have one."""
    if kind.WhichOneof("Type") == "imageType":
        mode = {"RGB": "RGB", "GRAYSCALE": "L"}[type(kind.imageType).ColorSpace.Name(kind.imageType.colorSpace)]
        size = (kind.imageType.width, kind.imageType.height)
        if (value.mode, value.size) != (mode, size):
            raise RuntimeError(f"the image is {value.mode} {value.size}, not {mode} {size}")
        pixels = torch.from_numpy(np.array(value)).float()
        return pixels[None, None] if mode == "L" else pixels.permute(2, 0, 1)[None]
    shape = tuple(kind.multiArrayType.shape)
    if (value.shape, value.dtype) != (shape, np.float32):
        raise RuntimeError(f"the array is {value.dtype} {value.shape}, not float32 {shape}")
    return torch.from_numpy(np.ascontiguousarray(value))


def _value(variable: Any, values: Values) -> Any:
    return values.get(variable.name, variable.val)


def _type_of(variable: Any) -> torch.dtype:
    from coremltools.converters.mil.mil import types

    return _TYPES[types.builtin_to_string(variable.dtype)]


def _tensor(value: Any) -> Tensor:
    """A value as a tensor that torch computes with on a processor: float16 as float32, which holds all of it."""
    tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def _numbers(value: Any) -> list[int]:
    return [int(each) for each in np.asarray(value).reshape(-1)]


def _padded(given: Values, value: float, axes: int = 2) -> Tensor:
    """The input with the padding of a convolution or a pooling."""
    x = _tensor(given["x"])
    if (kind := given.get("pad_type", "valid")) == "valid":
        return x
    assert kind == "custom", kind
    pad = _numbers(given["pad"])
    pairs = [pad[2 * axis : 2 * axis + 2] for axis in reversed(range(axes))]
    return functional.pad(x, [each for pair in pairs for each in pair], value=value)


def _convolution(given: Values) -> Tensor:
    bias = _tensor(given["bias"]) if given.get("bias") is not None else None
    return functional.conv2d(
        _padded(given, 0.0),
        _tensor(given["weight"]),
        bias,
        _numbers(given.get("strides", [1, 1])),
        0,
        _numbers(given.get("dilations", [1, 1])),
        int(given.get("groups", 1)),
    )


def _transposed_convolution(given: Values) -> Tensor:
    bias = _tensor(given["bias"]) if given.get("bias") is not None else None
    x = functional.conv_transpose2d(
        _tensor(given["x"]),
        _tensor(given["weight"]),
        bias,
        _numbers(given.get("strides", [1, 1])),
        groups=int(given.get("groups", 1)),
        dilation=_numbers(given.get("dilations", [1, 1])),
    )
    if given.get("pad_type", "valid") == "valid":
        return x
    top, bottom, left, right = _numbers(given["pad"])
    height, width = _numbers(given["output_shape"])[2:] if given.get("output_shape") is not None else x.shape[2:]
    x = x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]
    return x[:, :, :height, :width]


def _linear(given: Values) -> Tensor:
    bias = _tensor(given["bias"]) if given.get("bias") is not None else None
    return functional.linear(_tensor(given["x"]), _tensor(given["weight"]), bias)


def _matrix_product(given: Values) -> Tensor:
    x, y = _tensor(given["x"]), _tensor(given["y"])
    x = x.transpose(-1, -2) if given.get("transpose_x") else x
    return x @ (y.transpose(-1, -2) if given.get("transpose_y") else y)


def _average_pool(given: Values) -> Tensor:
    kernel, strides = _numbers(given["kernel_sizes"]), _numbers(given["strides"])
    total = functional.avg_pool2d(_padded(given, 0.0), kernel, strides)
    if not given.get("exclude_padding_from_average"):
        return total
    counted = functional.avg_pool2d(_padded({**given, "x": torch.ones_like(_tensor(given["x"]))}, 0.0), kernel, strides)
    return total / counted


def _max_pool(given: Values) -> Tensor:
    assert not given.get("ceil_mode"), "paddings of the last window"
    return functional.max_pool2d(
        _padded(given, -torch.inf), _numbers(given["kernel_sizes"]), _numbers(given["strides"])
    )


def _batch_norm(given: Values) -> Tensor:
    mean, variance, gamma, beta = (_tensor(given[name]) for name in ("mean", "variance", "gamma", "beta"))
    return functional.batch_norm(_tensor(given["x"]), mean, variance, gamma, beta, eps=float(given["epsilon"]))


def _layer_norm(given: Values) -> Tensor:
    axes, x = _numbers(given["axes"]), _tensor(given["x"])
    mean, variance = x.mean(axes, keepdim=True), x.var(axes, unbiased=False, keepdim=True)
    x = (x - mean) / (variance + float(given["epsilon"])).sqrt()
    for name, combine in (("gamma", torch.mul), ("beta", torch.add)):
        if given.get(name) is not None:
            x = combine(x, _tensor(given[name]))
    return x


def _reduced(function: Callable[..., Tensor]) -> Callable[[Values], Tensor]:
    return lambda given: function(
        _tensor(given["x"]), _numbers(given["axes"]), keepdim=bool(given.get("keep_dims", False))
    )


def _elementwise(function: Callable[[Tensor], Tensor]) -> Callable[[Values], Tensor]:
    return lambda given: function(_tensor(given["x"]))


def _of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Values], Tensor]:
    return lambda given: function(_tensor(given["x"]), _tensor(given["y"]))


def _along(value: Any, axis: Any, dimensions: int) -> Tensor:
    """A scale or zero point for each channel, in the shape in which it meets the values; in float32, whatever its type,
    as the product is.
    """
    tensor = _tensor(value).float()
    if tensor.dim() == 0 or axis is None:
        return tensor
    return tensor.reshape([-1 if each == int(axis) % dimensions else 1 for each in range(dimensions)])


def _quantize(given: Values) -> Tensor:
    x = _tensor(given["input"])
    scale = _along(given["scale"], given.get("axis"), x.dim())
    zero = _along(given.get("zero_point", np.int8(0)), given.get("axis"), x.dim())
    low, high = {"int8": (-128, 127), "uint8": (0, 255)}[str(given["output_dtype"])]
    return ((x / scale).round() + zero).clamp(low, high)


def _dequantize(given: Values) -> Tensor:
    integers = _tensor(given["input"]).float()
    scale = _along(given["scale"], given.get("axis"), integers.dim())
    return (integers - _along(given.get("zero_point", np.int8(0)), given.get("axis"), integers.dim())) * scale


def _dequantized_weight(given: Values) -> Tensor:
    integers, axis = _tensor(given["quantized_data"]).float(), given["axis"]
    zero = _along(given["zero_point"], axis, integers.dim())
    return (integers - zero) * _along(given["scale"], axis, integers.dim())


def _scaled_blocks(given: Values) -> Tensor:
    data, scale = _tensor(given["data"].astype(np.float32)), _tensor(given["scale"]).float()
    offset = given.get("offset")
    zero = torch.tensor(0.0) if offset is None else _tensor(offset.astype(np.float32))
    for axis, (size, blocks) in enumerate(zip(data.shape, scale.shape, strict=True)):
        scale = scale.repeat_interleave(size // blocks, axis)
    return (data - zero) * scale


def _slice(given: Values) -> Tensor:
    x, places = _tensor(given["x"]), []
    count = x.dim()

    def flags(name: str) -> list[bool]:
        return [bool(each) for each in np.asarray(given.get(name, [False] * count)).reshape(-1)]

    steps = _numbers(given.get("stride", [1] * count))
    for axis, (begin, end, step) in enumerate(
        zip(_numbers(given["begin"]), _numbers(given["end"]), steps, strict=True)
    ):
        start = None if flags("begin_mask")[axis] else begin
        stop = None if flags("end_mask")[axis] else end
        places.append(begin if flags("squeeze_mask")[axis] else slice(start, stop, step))
    return x[tuple(places)]


def _pad(given: Values) -> Tensor:
    pad = _numbers(given["pad"])
    pairs = [pad[place : place + 2] for place in range(0, len(pad), 2)]
    flat = [each for pair in reversed(pairs) for each in pair]
    mode = str(given.get("mode", "constant"))
    if mode == "constant":
        return functional.pad(_tensor(given["x"]), flat, value=float(given.get("constant_val", 0.0)))
    while flat[-2:] == [0, 0]:  # torch reflects the last axes alone
        flat = flat[:-2]
    return functional.pad(_tensor(given["x"]), flat, mode={"reflect": "reflect", "replicate": "replicate"}[mode])


def _upsample_bilinear(given: Values) -> Tensor:
    x = _tensor(given["x"])
    size = [
        round(float(given[f"scale_factor_{each}"]) * x.shape[2 + place])
        for place, each in enumerate(("height", "width"))
    ]
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=bool(given["align_corners"]))


def _split(given: Values) -> list[Tensor]:
    x, axis = _tensor(given["x"]), int(given["axis"])
    if given.get("split_sizes") is not None:
        return list(x.split(_numbers(given["split_sizes"]), axis))
    return list(x.chunk(int(given["num_splits"]), axis))


OPERATORS: Mapping[str, Callable[[Values], Any]] = {
    "add": _of_two(torch.add),
    "avg_pool": _average_pool,
    "batch_norm": _batch_norm,
    "cast": lambda given: _tensor(given["x"]).to(_TYPES[str(given["dtype"])]),
    "clip": lambda given: _tensor(given["x"]).clamp(float(given["alpha"]), float(given["beta"])),
    "concat": lambda given: torch.cat([_tensor(each) for each in given["values"]], int(given["axis"])),
    "constexpr_affine_dequantize": _dequantized_weight,
    "constexpr_blockwise_shift_scale": _scaled_blocks,
    "conv": _convolution,
    "conv_transpose": _transposed_convolution,
    "dequantize": _dequantize,
    "erf": _elementwise(torch.erf),
    "exp": _elementwise(torch.exp),
    "expand_dims": lambda given: _tensor(given["x"]).reshape(_expanded(given)),
    "gelu": lambda given: functional.gelu(
        _tensor(given["x"]), approximate="none" if str(given["mode"]) == "EXACT" else "tanh"
    ),
    "identity": _elementwise(torch.clone),
    "layer_norm": _layer_norm,
    "leaky_relu": lambda given: functional.leaky_relu(_tensor(given["x"]), float(given["alpha"])),
    "linear": _linear,
    "matmul": _matrix_product,
    "max_pool": _max_pool,
    "maximum": _of_two(torch.maximum),
    "minimum": _of_two(torch.minimum),
    "mul": _of_two(torch.mul),
    "pad": _pad,
    "quantize": _quantize,
    "real_div": _of_two(torch.div),
    "reduce_argmax": lambda given: _tensor(given["x"]).argmax(int(given["axis"]), bool(given["keep_dims"])),
    "reduce_max": _reduced(torch.amax),
    "reduce_mean": _reduced(torch.mean),
    "reduce_sum": _reduced(torch.sum),
    "relu": _elementwise(functional.relu),
    "relu6": _elementwise(functional.relu6),
    "reshape": lambda given: _tensor(given["x"]).reshape(_numbers(given["shape"])),
    "rsqrt": lambda given: (_tensor(given["x"]) + float(given.get("epsilon", 0.0))).rsqrt(),
    "sigmoid": _elementwise(torch.sigmoid),
    "sigmoid_hard": lambda given: (float(given["alpha"]) * _tensor(given["x"]) + float(given["beta"])).clamp(0, 1),
    "silu": _elementwise(functional.silu),
    "slice_by_index": _slice,
    "softmax": lambda given: _tensor(given["x"]).softmax(int(given["axis"])),
    "split": _split,
    "sqrt": _elementwise(torch.sqrt),
    "square": _elementwise(torch.square),
    "squeeze": lambda given: _tensor(given["x"]).squeeze(tuple(_numbers(given["axes"]))),
    "sub": _of_two(torch.sub),
    "tanh": _elementwise(torch.tanh),
    "thresholded_relu": lambda given: torch.where(
        _tensor(given["x"]) >= float(given["alpha"]), _tensor(given["x"]), torch.zeros(())
    ),
    "transpose": lambda given: _tensor(given["x"]).permute(_numbers(given["perm"])),
    "upsample_bilinear": _upsample_bilinear,
}


def _expanded(given: Values) -> list[int]:
    shape = list(_tensor(given["x"]).shape)
    for axis in sorted(each % (len(shape) + len(_numbers(given["axes"]))) for each in _numbers(given["axes"])):
        shape.insert(axis, 1)
    return shape
