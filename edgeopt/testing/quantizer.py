"""What a quantizer must keep."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from edgeopt.networks.capture import export_program
from edgeopt.plugins.declarations import Plugin, QuantizerPlugin
from edgeopt.plugins.use import Use
from edgeopt.testing.contracts import PluginContract
from edgeopt.testing.values import tiny_data, tiny_model


class QuantizerContract(PluginContract):
    """Subclass it, set `name` and `options`."""

    kind: ClassVar[type[Plugin]] = QuantizerPlugin

    @pytest.mark.parametrize("qat", [False, True])
    def test_builds_a_quantizer(self, use: Use[QuantizerPlugin], qat: bool) -> None:
        from torchao.quantization.pt2e.quantizer import Quantizer

        first, second = use.plugin.build(use.options, qat), use.plugin.build(use.options, qat)
        assert isinstance(first, Quantizer)
        assert first is not second, "each build gives a quantizer of its own: preparing one writes into it"

    def test_precision_has_a_name(self, use: Use[QuantizerPlugin]) -> None:
        assert use.plugin.precision
        assert use.plugin.precision != "float32"

    def test_quantizes_convolutions(self, use: Use[QuantizerPlugin]) -> None:
        """Static quantization of a small network quantizes something and still gives finite logits."""
        import torch  # heavy, as torchao is
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        data = tiny_data()
        state = tiny_model(data)
        batch = torch.from_numpy(data.preprocessing.normalize(data.calibration.pixels(range(4))))
        graph = export_program(state.module, batch, (1, 8)).module()
        prepared: Any = prepare_pt2e(graph, use.plugin.build(use.options, False))
        with torch.no_grad():
            prepared(batch)
            converted: Any = convert_pt2e(prepared)
            logits = converted(batch).numpy()
        nodes = [str(node.target) for node in converted.graph.nodes if node.op == "call_function"]
        quantized = [target for target in nodes if "quantize" in target and "dequantize" not in target]
        assert quantized, "nothing in a network of convolutions was quantized"
        assert logits.shape == (4, len(data.classes))
        assert np.isfinite(logits).all()
