"""The runtime: NumPy, which knows nothing of torch."""

import json
import zipfile

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edgeopt.export.predictor import FilePredictor
from edgeopt.plugins import ExportError, TensorInfo


def _convolution(x, weight, bias=None, strides=(1, 1), pads=(0, 0), dilations=(1, 1), groups=1):
    x = np.pad(x.reshape(len(x), groups, -1, *x.shape[2:]), [(0, 0)] * 3 + [(each, each) for each in pads])
    reach = [dilation * (size - 1) + 1 for dilation, size in zip(dilations, weight.shape[2:], strict=True)]
    steps = [slice(None, None, step) for step in (1, 1, 1, *strides, *dilations)]
    windows = sliding_window_view(x, reach, axis=(3, 4))[tuple(steps)]
    products = np.einsum("ngcyxij,gocij->ngoyx", windows, weight.reshape(groups, -1, *weight.shape[1:]), optimize=True)
    return products.reshape(len(x), -1, *products.shape[3:]) + (0 if bias is None else bias[:, None, None])


def _batch_norm(x, weight, bias, mean, variance, _momentum, epsilon):
    scale = weight / np.sqrt(variance + epsilon)
    return (x * scale[:, None, None] + (bias - mean * scale)[:, None, None],)


def _dequantize(x, scales, zeros, axis, *_bounds):
    shape = [-1 if each == axis else 1 for each in range(x.ndim)]  # one scale for all fits whatever it says
    return ((x - np.reshape(zeros, shape)) * np.reshape(scales, shape)).astype(np.float32)


OPERATORS = {
    "conv2d.default": _convolution,
    "_native_batch_norm_legit_no_training.default": _batch_norm,
    "linear.default": lambda x, weight, bias=0: x @ weight.T + bias,
    "relu.default": lambda x: np.maximum(x, 0),
    "hardtanh.default": np.clip,
    "add.Tensor": lambda x, y: x + y,
    "mul.Tensor": lambda x, y: x * y,
    "getitem": lambda x, place: x[place],
    "adaptive_avg_pool2d.default": lambda x, _one: x.mean((2, 3), keepdims=True),
    "view.default": np.reshape,
    "permute.default": np.transpose,
    "clone.default": lambda x, *_layout: x,
    "_to_copy.default": lambda x, dtype: x.astype(dtype),
    "sym_size.int": lambda x, axis: x.shape[axis],
    "quantize_per_tensor.default": lambda x, step, zero, *to: np.clip(np.round(x / step) + zero, *to[:2]).astype(to[2]),
    "dequantize_per_tensor.default": _dequantize,
    "dequantize_per_channel.default": _dequantize,
}


class Network(FilePredictor):
    """An opened file; a damaged one is an `ExportError`."""

    def __init__(self, path):
        try:
            with np.load(path) as arrays:
                self.constants = dict(arrays)
            self.given, self.returned, self.steps, infos = json.loads(str(self.constants.pop("graph")))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ExportError(f"{path} cannot be opened: {error}", hint="export it again") from error
        infos = [TensorInfo(**{**each, "shape": tuple(each["shape"])}) for each in infos]
        self.input_info, self.output_infos = infos[0], tuple(infos[1:])

    def run(self, piece):
        values = {**self.constants, self.given: piece}
        for name, kind, arguments in self.steps:
            values[name] = OPERATORS[kind](*_filled(arguments, values))
        return tuple(values[name] for name in self.returned)

    def close(self):
        self.constants, self.steps = {}, []


def _filled(value, values):
    return [_filled(each, values) for each in value] if isinstance(value, list) else values.get(value, value)
