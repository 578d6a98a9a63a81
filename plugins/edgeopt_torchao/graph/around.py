"""A quantizer around another one."""

from __future__ import annotations

from typing import Any, cast

from torch.fx import GraphModule
from torchao.quantization.pt2e.quantizer import Quantizer


class QuantizerAround(Quantizer):  # type: ignore[misc]  # torchao ships no types
    """`quantizer`, all of whose calls are handed on; a class of its own changes what comes of some."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self._quantizer = quantizer

    def transform_for_annotation(self, model: GraphModule) -> GraphModule:
        return cast("GraphModule", self._quantizer.transform_for_annotation(model))

    def annotate(self, model: GraphModule) -> GraphModule:
        return cast("GraphModule", self._quantizer.annotate(model))

    def validate(self, model: GraphModule) -> None:
        self._quantizer.validate(model)

    def prepare_obs_or_fq_callback(self, model: GraphModule, edge_or_node_to_obs_or_fq: Any) -> None:
        self._quantizer.prepare_obs_or_fq_callback(model, edge_or_node_to_obs_or_fq)
