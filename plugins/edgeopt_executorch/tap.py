"""A `.pte` file that shows its inner values: its program, lowered once more with them as further outputs.

A delegate shows nothing of what it computes, and the runtime's event tracer is not in the published wheels.
ExecuTorch's own `devtools.intermediate_output_tap` marks values of a program, which then leave the delegate as outputs
of it: the values are those that XNNPACK computed. It is another file than the one asked for, made from the same program
with the same options; whether it answers alike, down to the last bit, is measured and said.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.fx import Node

from edgeopt.export.predictor import quiet
from edgeopt.networks.outputs import returned_nodes
from edgeopt.plugins import Seen, SeenTensor, TapRequest, as_outputs
from edgeopt_executorch.backends import partitioner_of
from edgeopt_executorch.lowering import CONVERSIONS, for_executorch, to_edge, with_batch
from edgeopt_executorch.native_messages import native_messages
from edgeopt_executorch.options import DEFAULT_CHIP

with quiet():
    from executorch.devtools.intermediate_output_tap import FULL_TENSOR, strip_taps_, tap_intermediate_outputs_
    from executorch.extension.pybindings import _C

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeopt.plugins import Pixels


class TappedExecuTorch:
    """A second file of the same program, with its inner values as outputs, opened in ExecuTorch."""

    how = "a second file of the same program and options, with inner values as further outputs, in ExecuTorch"

    def __init__(self, request: TapRequest) -> None:
        options, wanted = request.options, set(request.nodes)
        with quiet():
            program = copy.deepcopy(request.state.program)
            for node, original in zip(program.graph.nodes, request.state.program.graph.nodes, strict=True):
                node.name = original.name  # copying renames those that are called like something of Python's

            answers = returned_nodes(program)  # which are outputs already

            def is_wanted(node: Node) -> bool:
                return node.name in wanted and node not in answers

            program, taps = tap_intermediate_outputs_(program, rules=[(is_wanted, FULL_TENSOR)])
            self._nodes = tuple(tap.node_name for tap in taps)
            self._answers = tuple(node.name for node in answers)
            program = for_executorch(CONVERSIONS[options.precision](with_batch(program, options.max_batch)))
            edge = to_edge(program, partitioner_of(options.backend, options.chip or DEFAULT_CHIP), {})
            strip_taps_(edge)
            written = edge.to_executorch()
        file = request.folder / "tapped.pte"
        file.write_bytes(bytes(written.buffer))
        with native_messages():
            _C._unsafe_reset_threadpool(request.threads)  # noqa: SLF001 - the bindings' only way
            self._program = _C._load_program(str(file))  # noqa: SLF001
            self._method = self._program.load_method("forward")

    def run(self, batch: NDArray[np.float32] | Pixels) -> Seen:
        """What the file computes of images, one after the other."""
        return Seen.joined([self._call(batch[index : index + 1]) for index in range(len(batch))])

    def _call(self, image: NDArray[np.float32] | Pixels) -> Seen:
        given = torch.from_numpy(np.ascontiguousarray(image))
        values = [each.numpy().copy() for each in self._method([given])]  # the next call writes over the runtime's own
        nodes = (*self._answers, *self._nodes)
        tensors = [
            SeenTensor(node, value.astype(np.float32, copy=False), node)
            for node, value in zip(nodes, values, strict=True)
        ]
        return Seen(as_outputs(values[: len(self._answers)]), tensors)

    def close(self) -> None:
        """Frees the file's memory."""
        del self._method, self._program
