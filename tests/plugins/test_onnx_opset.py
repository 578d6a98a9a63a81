"""Bringing a file down to an operator set that PyTorch's converter does not reach."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from qdq_graphs import Chain, images, run

from edgeopt.errors import ExportError
from edgeopt_onnx.opset import lowered


def test_a_quantized_graph_comes_down_to_17() -> None:
    chain = Chain().round(0.05, 3).convolution(4, 3).round(0.1, -128)
    chain.add("ReduceMean", chain.constant(np.array([2, 3])), noop_with_empty_axes=0)
    model = chain.proto()
    converted = lowered(model, 17)
    assert converted.opset_import[0].version == 17
    assert np.array_equal(run(converted, images()), run(model, images()))


def test_an_operator_that_is_not_in_the_set_is_named() -> None:
    given, returned = (helper.make_tensor_value_info(name, 1, ["n", 4]) for name in ("input", "output"))
    graph = helper.make_graph([helper.make_node("Mish", ["input"], ["output"])], "mish", [given], [returned])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    with pytest.raises(ExportError, match="Mish") as caught:
        lowered(model, 17)
    assert caught.value.problems[0].option == "opset"
