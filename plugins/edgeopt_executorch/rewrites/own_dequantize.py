"""A dequantize node for each user, as XNNPACK's layout pass needs."""

from __future__ import annotations

from torch.export import ExportedProgram

from edgeopt.export.predictor import quiet
from edgeopt_executorch.operators import operator_name

with quiet():  # importing ExecuTorch alone writes several warnings
    from executorch.exir.pass_base import ExportedProgramPassBase, ExportedProgramPassResult


class OwnDequantize(ExportedProgramPassBase):  # type: ignore[misc]  # ExecuTorch ships no types
    """Give each user of dequantized values a dequantize node of its own.

    Where XNNPACK runs one user and not another, its layout pass turns the values for both from NHWC to NCHW, and the
    runtime refuses the shape. Before the lowering this would be in vain: it merges equal nodes.
    """

    def call(self, exported_program: ExportedProgram) -> ExportedProgramPassResult:
        graph = exported_program.graph
        for node in list(graph.nodes):
            if (
                node.op == "call_function"
                and operator_name(node) == "quantized_decomposed.dequantize_per_tensor.default"
            ):
                for user in list(node.users)[1:]:
                    with graph.inserting_after(node):
                        own = graph.node_copy(node)
                    user.replace_input_with(node, own)
        exported_program.graph_module.recompile()
        return ExportedProgramPassResult(exported_program, True)
