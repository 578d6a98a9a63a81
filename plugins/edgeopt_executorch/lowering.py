"""Write an exported program as a `.pte` file whose heavy nodes run in a delegate of ExecuTorch, XNNPACK by default.

The steps: fix the batch, choose the precision, fold the quantized weights, lower to the edge dialect, fold what
lowering made constant, delegate, serialize.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.ao.quantization.fx._decomposed
from torch.export import ExportedProgram
from torch.fx import Node

from edgeopt.export.predictor import quiet
from edgeopt.export.refusals import OperatorPlace, require_one_image, require_whole_activations, unsupported
from edgeopt.files import write_aside
from edgeopt.networks.batch_norms import fold_batch_norms
from edgeopt.networks.bits import packed_layers
from edgeopt.networks.capture import example_of, require_same_function
from edgeopt.networks.layers import layer_operator, module_path
from edgeopt.plugins import ExportError
from edgeopt_executorch.backends import XNNPACK, partitioner_of
from edgeopt_executorch.lowering_speed import quick_lowering
from edgeopt_executorch.operators import operator_name
from edgeopt_executorch.options import CARD_METHOD, DEFAULT_CHIP, SATURATES, Chip, no_int4_weights
from edgeopt_executorch.precision import to_dynamic_int8, to_float16
from edgeopt_executorch.rewrites.clamps import settle_clips
from edgeopt_executorch.rewrites.own_dequantize import OwnDequantize
from edgeopt_executorch.rewrites.pad_and_slice import settle_moves
from edgeopt_executorch.rewrites.pooling import settle_pools
from edgeopt_executorch.rewrites.tensor_names import give_plain_names
from edgeopt_executorch.small_constants import small_constants_within

with quiet():  # importing ExecuTorch alone writes several warnings
    from executorch.exir import EdgeProgramManager, ExecutorchProgramManager, to_edge_transform_and_lower
    from executorch.exir.backend.partitioner import Partitioner
    from executorch.exir.lowered_backend_module import get_lowered_backend_modules
    from executorch.exir.pass_base import ExportedProgramPassBase, ExportedProgramPassResult
    from executorch.exir.pass_manager import ExportedProgramPassManager
    from executorch.exir.passes.constant_prop_pass import constant_prop_pass
    from executorch.exir.verification.verifier import SpecViolationError

CONVERSIONS: Mapping[str, Callable[[ExportedProgram], ExportedProgram]] = {
    "program": lambda program: program,
    "float16": to_float16,
    "dynamic-int8": to_dynamic_int8,
}

_BETWEEN_ACTIVATIONS = ("aten.bmm", "aten.baddbmm", "aten.matmul")
"""Products that attention computes of two activations; a product by a constant is one of other names after lowering."""

_DEQUANTIZE = (
    torch.ops.quantized_decomposed.dequantize_per_tensor.default,
    torch.ops.quantized_decomposed.dequantize_per_channel.default,
)


@dataclass(frozen=True, kw_only=True)
class Delegation:
    """How much of a lowered program runs in the XNNPACK delegate."""

    compute_nodes: int
    """Operators of the lowered program, without quantize, dequantize, tuple access and shape arithmetic."""
    delegated_nodes: int
    """Those of them inside XNNPACK partitions."""
    partitions: int
    outside: tuple[OperatorPlace, ...]
    """Every operator that the portable kernels run, quantize and dequantize among them, in the order of execution."""
    weighted_layers: int
    """Convolutions and linear layers."""
    quantized_layers: int
    """Those of them whose weights and inputs are quantized."""

    @property
    def delegated_share(self) -> float:
        """Share of the compute nodes that run in the delegate, 0..1."""
        return self.delegated_nodes / self.compute_nodes if self.compute_nodes else 0.0


@dataclass(frozen=True, kw_only=True)
class ExecuTorchReport(Delegation):
    """What was written, and how much of it runs in the delegate."""

    path: Path
    size_bytes: int
    max_batch: int
    """The file takes batches of 1 up to this."""


def export_executorch(
    program: ExportedProgram,
    path: Path,
    *,
    card_json: str,
    max_batch: int = 1,
    precision: str = "program",
    backend: str = XNNPACK,
    chip: Chip = DEFAULT_CHIP,
    int4_weights: Literal["refuse", "int8"] = "refuse",
) -> ExecuTorchReport:
    """Lower a float or an unfolded quantized program to a backend and write it to `path`; the program stays as it is.

    Args:
        program: one input, such as float32 [N, C, H, W], and its outputs [N, ...], N dynamic or 1.
        path: the `.pte` file, written aside and renamed into place.
        card_json: text that the file's constant method `CARD_METHOD` returns.
        max_batch: 1 gives a file for exactly one image at a time, more a file for batches of 1 up to `max_batch`.
        precision: "program" as it is, or for a float program "float16" or "dynamic-int8".
        backend: "xnnpack", "coreml", "vulkan" or "qnn".
        chip: for which of Qualcomm's chips "qnn" compiles.
        int4_weights: "refuse" weights of four bits or fewer, or store them as "int8".

    Raises:
        ExportError: weights take four bits or fewer and `int4_weights` refuses them; activations take fewer than eight
            bits; the program has several inputs; a backend's compiler is missing; an operator is not in
            ExecuTorch's core set, or its runtime has no kernel for it.

    """
    if int4_weights == "refuse" and (packed := packed_layers(program)):
        raise ExportError(no_int4_weights(min(each.weights or 0 for each in packed), packed))
    require_whole_activations("executorch", SATURATES, program)
    with quiet():
        require_one_image(program, "ExecuTorch")
        unfolded = CONVERSIONS[precision](with_batch(program, max_batch))
        partitioner = partitioner_of(backend, chip)
        before = unfolded.module(check_guards=False)
        program = for_executorch(unfolded)
        require_same_function(
            before, program.module(check_guards=False), example_of(program), "folding constants for ExecuTorch"
        )
        with unsupported_explained(program):
            lowered = to_edge(program, partitioner, {CARD_METHOD: card_json})
            # Before the last step, which rewrites the nodes for the runtime.
            delegation = _delegation(lowered.exported_program())
            written = lowered.to_executorch()
        _require_kernels(written, delegation.outside)
    write_aside(path, bytes(written.buffer))
    return ExecuTorchReport(
        path=path,
        size_bytes=len(written.buffer),
        max_batch=max_batch,
        **vars(delegation),
    )


def for_executorch(program: ExportedProgram) -> ExportedProgram:
    """The program with its constants folded, in operators that XNNPACK takes, changed in place."""
    program = fold_constants(program)
    settle_moves(program.graph)
    settle_pools(program.graph)
    settle_clips(program.graph)
    program.graph_module.recompile()
    return program


def to_edge(
    program: ExportedProgram, partitioner: Partitioner, constant_methods: Mapping[str, str]
) -> EdgeProgramManager:
    """The program lowered to the edge dialect, and what the partitioner takes of it delegated."""
    with quick_lowering(program.graph), small_constants_within():
        return to_edge_transform_and_lower(
            program,
            transform_passes=ExportedProgramPassManager([_FoldConstants(), OwnDequantize()]),
            partitioner=[partitioner],
            constant_methods=dict(constant_methods),
        )


@contextmanager
def unsupported_explained(program: ExportedProgram) -> Iterator[None]:
    """Within, a complaint of ExecuTorch's about operators of `program` becomes an `ExportError` that names them."""
    constants = dict(program.constants)
    try:
        yield
    except (SpecViolationError, RuntimeError) as error:
        program.constants.update(constants)  # which the lowering took, and without which nothing is decomposed
        if places := _blamed(str(error), program):
            raise unsupported("ExecuTorch", places, "it is not in its core operator set") from error
        raise


def fold_constants(program: ExportedProgram) -> ExportedProgram:
    """Compute every node that depends on constants alone, but for dequantize: q(weight) becomes an int8 constant.

    Works in place on the program's graph, and returns the program.
    """
    folded: ExportedProgram = constant_prop_pass(
        program, custom_skip_targets={*_DEQUANTIZE, torch.ops.aten.full.default}
    )
    return folded


class _FoldConstants(ExportedProgramPassBase):  # type: ignore[misc]  # ExecuTorch ships no types
    """Fold what lowering made constant.

    Otherwise each scalar of a decomposed hardsigmoid is cast by a node outside the delegate.
    """

    def call(self, exported_program: ExportedProgram) -> ExportedProgramPassResult:
        return ExportedProgramPassResult(constant_prop_pass(exported_program), True)


def with_batch(program: ExportedProgram, max_batch: int) -> ExportedProgram:
    """Capture the program again for a batch of exactly 1, or of 1 up to `max_batch`."""
    if max_batch < 1:
        raise ValueError(f"max_batch is {max_batch}, the smallest is 1")
    module = program.module(check_guards=False)
    # Training in channels-last leaves weights in that layout, and XNNPACK's layout pass wants each constant in one
    # order.
    contiguous = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    module.load_state_dict(contiguous, assign=True)
    fold_batch_norms(module)  # XNNPACK's own folding fails behind a transposed convolution with groups
    give_plain_names(module)
    (user_input,) = (node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
    value = user_input.meta["val"]
    if max_batch == 1:
        return torch.export.export(module, (torch.zeros(1, *value.shape[1:], dtype=value.dtype),))
    # A sample batch of 1 would be taken for a constant, so at least 2.
    sample = torch.zeros(2, *value.shape[1:], dtype=value.dtype)
    return torch.export.export(
        module, (sample,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=max_batch)},)
    )


def _delegation(program: ExportedProgram) -> Delegation:
    delegates = get_lowered_backend_modules(program.graph_module)
    inside = [node for one in delegates for node in one.original_module.graph.nodes if _is_operator(node)]
    outside = [node for node in program.graph.nodes if _is_operator(node)]
    return Delegation(
        compute_nodes=sum(map(_computes, inside + outside)),
        delegated_nodes=sum(map(_computes, inside)),
        partitions=len(delegates),
        outside=tuple(map(place_of, outside)),
        weighted_layers=sum(map(_is_weighted, inside + outside)),
        quantized_layers=sum(map(_is_quantized, inside + outside)),
    )


def _is_operator(node: Node) -> bool:
    """Whether the runtime calls a kernel for the node; not so for delegates, tuple access and shape arithmetic."""
    return node.op == "call_function" and hasattr(node.target, "_schema") and "sym_" not in operator_name(node)


def _computes(node: Node) -> bool:
    return "quantize_per_" not in operator_name(node)


def _is_weighted(node: Node) -> bool:
    operator = layer_operator(operator_name(node), node)
    return operator is not None and not operator_name(node).startswith(_BETWEEN_ACTIVATIONS)


def _is_quantized(node: Node) -> bool:
    operator = layer_operator(operator_name(node), node)
    if operator is None or not _is_weighted(node):
        return False
    operands = (node.args[operator.input], node.args[operator.weight])
    sources = [_before_layout(operand) for operand in operands if isinstance(operand, Node)]
    return all("dequantize_per_" in operator_name(source) for source in sources)


def _before_layout(node: Node) -> Node:
    """Walk back over transposes and reshapes, which stand between a linear layer and its dequantize nodes."""
    while operator_name(node).startswith(("aten.permute", "aten.t.", "aten.view")):
        node = node.all_input_nodes[0]
    return node


def place_of(node: Node) -> OperatorPlace:
    """An operator, by the name that it has in ATen, with the path of its module."""
    return OperatorPlace(operator_name(node), module_path(node))


def _blamed(message: str, program: ExportedProgram) -> tuple[OperatorPlace, ...]:
    """Return the operators that ExecuTorch's message complains about, with their places.

    There are none where the message is about something else.
    """
    if "not in Core ATen" not in message and "Missing out variants" not in message:
        return ()
    # The complaint is about the decomposed program, whose operators the captured one may not have.
    nodes = [
        node for node in program.run_decompositions().graph.nodes if _is_operator(node) and _mentions(message, node)
    ]
    return tuple(dict.fromkeys(map(place_of, nodes)))


def _mentions(message: str, node: Node) -> bool:
    name = operator_name(node)
    packet = name.rpartition(".")[0]
    return f"{name} " in message or f"'{packet.replace('.', '::')}" in message


def _require_kernels(written: ExecutorchProgramManager, outside: tuple[OperatorPlace, ...]) -> None:
    """Raise where the runtime beside this exporter has no kernel for an operator outside the delegate."""
    from executorch.extension.pybindings import _C

    present = set(_C._get_operator_names())  # noqa: SLF001 - the bindings' only way
    operators = written.executorch_program.execution_plan[0].operators
    missing = {one.name for one in operators if f"{one.name}.{one.overload}".rstrip(".") not in present}
    if missing:
        places = [place for place in outside if place.operator.rpartition(".")[0].replace(".", "::") in missing]
        blamed = tuple(dict.fromkeys(places)) or tuple(OperatorPlace(name, "") for name in sorted(missing))
        raise unsupported("ExecuTorch", blamed, "its runtime has no kernel for it")
