"""What an operator of an ONNX graph is: a layer with a weight, or one that only moves values around."""

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that multiply by weights."""
LAYOUT = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Operators that move values and change none."""
