"""The operators that TensorFlow Lite Micro has, and how C++ registers them.

Source: https://github.com/tensorflow/tflite-micro/blob/main/python/tflite_micro/python_ops_resolver.cc, which is what
the interpreter of the PyPI package knows; a test asks that interpreter for each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgeopt.plugins import Problem

#: By the names of TFLite's schema.
KNOWN = frozenset(  # as one text: a list of them would take a page
    """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_ARGS
    BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE
    DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD
    FULLY_CONNECTED GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS
    LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM
    MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX REDUCE_MIN RELU
    RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX
    SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF
    TANH TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
    """.split()  # noqa: SIM905
)
#: Parts of those names that are not simply capitalized in the names of methods.
_WRITTEN = {"2D": "2D", "CUMSUM": "CumSum", "PADV2": "PadV2", "MATMUL": "MatMul", "LSTM": "LSTM"}


def method(kind: str) -> str:
    """The method of `MicroMutableOpResolver` that registers an operator, such as `AddConv2D` for `CONV_2D`."""
    return "Add" + "".join(_WRITTEN.get(part, part.capitalize()) for part in kind.split("_"))


def unknown(kinds: Iterable[str]) -> list[str]:
    """Those of some operators that TensorFlow Lite Micro has not, each once, in order."""
    return [kind for kind in dict.fromkeys(kinds) if kind not in KNOWN]


def lacking(kinds: Mapping[str, int]) -> Problem | None:
    """The problem of operators that a microcontroller could not run, by their counts; None where there is none."""
    if not (names := unknown(kinds)):
        return None
    told = ", ".join(f"{name} ({kinds[name]} times)" if kinds[name] > 1 else name for name in names)
    return Problem(
        f"TensorFlow Lite Micro has no operator {told}",
        "replace what becomes of it in the model, as by ReLU and average pooling, or leave this export out",
    )
