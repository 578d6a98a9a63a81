"""What ExecuTorch's backends take of a program, asked of their own partitioners: no compiler of theirs runs, and no SDK
is needed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from edgeopt.export.predictor import quiet
from edgeopt.export.refusals import require_one_image
from edgeopt.plugins import (
    AcceleratorAnswer,
    AcceleratorRequest,
    AskedOperator,
    ExportError,
    UserError,
    Verdict,
    first_line,
    installed_version,
)
from edgeopt_executorch.backends import partitioner_of
from edgeopt_executorch.lowering import (
    CONVERSIONS,
    for_executorch,
    place_of,
    to_edge,
    unsupported_explained,
    with_batch,
)
from edgeopt_executorch.operators import operator_name

with quiet():  # importing ExecuTorch alone writes several warnings
    from executorch.exir import to_edge_transform_and_lower
    from executorch.exir.backend.canonical_partitioners.pattern_op_partitioner import (
        generate_partitions_from_list_of_nodes,
    )
    from executorch.exir.backend.partitioner import Partitioner, PartitionResult
    from torch.fx.passes.operator_support import OperatorSupportBase

Decompositions = tuple[list[Any], Callable[[Node], bool] | None]
_NO_KERNEL = "neither {backend} nor ExecuTorch's portable kernels have it"
_LEFT_ALONE = "{backend} takes it, and nothing beside it: it stays out of the pieces that its partitioner makes"


class _Answered(Exception):  # noqa: N818 - it is none
    """Ends a lowering at the moment when the partitioner has been asked: what would follow is of no interest."""


class _Asked(Partitioner):  # type: ignore[misc]  # ExecuTorch ships no types
    """Stands in the place of a backend's partitioner, keeps what it says of each node, and ends the lowering."""

    def __init__(self) -> None:
        super().__init__()
        self.islands: dict[Node, Any] = {}
        self.reasons: dict[Node, str] = {}
        self.nodes: list[Node] = []

    def partition(self, program: ExportedProgram) -> PartitionResult:
        self.nodes = [node for node in program.graph.nodes if _is_operator(node)]
        self.ask(program)
        raise _Answered

    @abstractmethod
    def ask(self, program: ExportedProgram) -> None:
        """Fills `islands`, the piece that each node runs in, and `reasons`, why others run in none."""


class _OfPartitioner(_Asked):
    """What a partitioner tags, with the reasons that `explained` gives for the rest."""

    def __init__(self, partitioner: Partitioner, explained: Callable[[Node], str]) -> None:
        super().__init__()
        self._partitioner, self._explained = partitioner, explained

    def ops_to_not_decompose(self, program: ExportedProgram) -> Decompositions:
        kept: Decompositions = self._partitioner.ops_to_not_decompose(program)
        return kept

    def ask(self, program: ExportedProgram) -> None:
        self._partitioner.partition(program)
        tags = {node: node.meta.get("delegation_tag") for node in self.nodes}
        self.islands = {node: tag for node, tag in tags.items() if tag is not None}
        self.reasons = {node: self._explained(node) for node, tag in tags.items() if tag is None}


class _OfBuilders(_Asked):
    """What ExecuTorch's builders for Qualcomm's QNN make of each node.

    `QnnPartitioner` asks these first and Qualcomm's SDK, which is not to be had without an account, then. Its passes
    run before, as they do there.
    """

    def ops_to_not_decompose(self, _program: ExportedProgram) -> Decompositions:
        from executorch.backends.qualcomm.partition.utils import filter_fn, get_skip_decomp_table

        return get_skip_decomp_table(), filter_fn

    def ask(self, program: ExportedProgram) -> None:
        from executorch.backends.qualcomm.builders.node_visitor_manager import get_node_visitors
        from executorch.backends.qualcomm.partition.common_defs import allow_list_operator, not_supported_operator

        builders: Mapping[str, Any] = get_node_visitors(program)
        made: dict[Node, dict[int, Any]] = defaultdict(dict)  # what builders keep of each other's tensors

        def refusal(node: Node) -> str:
            """Why no builder takes a node, empty for one that does."""
            if node.target in allow_list_operator:
                return ""
            if node.target in not_supported_operator:
                return "ExecuTorch's QNN backend lists it as not supported"
            name = getattr(node.target, "__name__", "")
            if name not in builders:
                return "ExecuTorch has no builder of it for QNN"
            try:
                built = builders[name].define_node(node, made)
            except Exception as error:  # builders raise many types for arguments that they do not take
                return f"its builder refuses it: {first_line(error)}"
            return "" if built is not None else "its builder does not take these arguments"

        refusals = {node: refusal(node) for node in program.graph.nodes if node.op == "call_function"}

        class Taken(OperatorSupportBase):
            def is_node_supported(self, _submodules: Mapping[str, Any], node: Node) -> bool:
                return node.op == "call_function" and not refusals[node]

        pieces = generate_partitions_from_list_of_nodes(program.graph_module, op_support=Taken())
        self.islands = {node: piece.id for piece in pieces for node in piece.nodes}
        self.reasons = {node: reason for node, reason in refusals.items() if reason}


def ask_coreml(request: AcceleratorRequest) -> AcceleratorAnswer:
    """Asks Apple's coremltools which operators it converts, through ExecuTorch's Core ML partitioner."""
    reason = f"coremltools {installed_version('coremltools')} does not convert it, or ExecuTorch knows that it fails"
    asked = _OfPartitioner(partitioner_of("coreml"), lambda _node: reason)
    return _answer(
        request, asked, "Core ML", f"coremltools {installed_version('coremltools')} and the Core ML partitioner"
    )


def ask_vulkan(request: AcceleratorRequest) -> AcceleratorAnswer:
    """Asks ExecuTorch's Vulkan partitioner, which knows the shaders of its backend."""
    with _skips_of_vulkan() as skips:
        asked = _OfPartitioner(partitioner_of("vulkan"), lambda node: skips.get(node, ""))
        return _answer(request, asked, "Vulkan", "the Vulkan partitioner")


def ask_qnn(request: AcceleratorRequest) -> AcceleratorAnswer:
    """Asks ExecuTorch's builders for QNN; what Qualcomm's own SDK would refuse on a chip, they do not know."""
    return _answer(request, _OfBuilders(), "QNN", "the builders for QNN, without Qualcomm's SDK")


def _answer(request: AcceleratorRequest, asked: _Asked, backend: str, source: str) -> AcceleratorAnswer:
    with quiet():
        _lower_until_asked(request, asked)
    kernels = _kernels()
    verdicts = [_verdict(node, asked, backend, kernels) for node in asked.nodes]
    islands = {asked.islands[node] for node in asked.nodes if node in asked.islands}
    return AcceleratorAnswer(tuple(verdicts), len(islands), f"{source}, ExecuTorch {installed_version('executorch')}")


def _lower_until_asked(request: AcceleratorRequest, asked: _Asked) -> None:
    options = request.options
    require_one_image(request.state.program, "ExecuTorch")
    program = for_executorch(CONVERSIONS[options.precision](with_batch(request.state.program, options.max_batch)))
    if isinstance(asked, _OfBuilders):
        with suppress(_Answered), _qnn_refusals(), unsupported_explained(program):
            _to_qnn_edge(program, asked)
    else:
        with suppress(_Answered), unsupported_explained(program):
            to_edge(program, asked, {})


def _to_qnn_edge(program: ExportedProgram, asked: _Asked) -> None:
    """Lowers as ExecuTorch's `to_edge_transform_and_lower_to_qnn`, which would download the SDK first."""
    from executorch.backends.qualcomm.serialization.qc_schema import QnnExecuTorchBackendType
    from executorch.backends.qualcomm.utils.utils import get_qnn_pass_manager_cls, qnn_edge_config

    passes = get_qnn_pass_manager_cls(QnnExecuTorchBackendType.kHtpBackend)()
    prepared = passes.transform_for_export_pipeline(program)
    to_edge_transform_and_lower(
        prepared,
        transform_passes=passes.get_to_edge_transform_passes(prepared),
        partitioner=[asked],
        compile_config=qnn_edge_config(),
    )


@contextmanager
def _qnn_refusals() -> Iterator[None]:
    """Within, what QNN's own passes fail with is that the program is refused as a whole."""
    try:
        yield
    except (_Answered, UserError):
        raise
    except Exception as error:  # passes end with many types, and the pass manager wraps each into another
        said = f"ExecuTorch's passes for QNN do not take this program: {first_line(error.__cause__ or error)}"
        raise ExportError(said, hint="leave this target to a file of another precision") from error


def _verdict(node: Node, asked: _Asked, backend: str, kernels: frozenset[str]) -> AskedOperator:
    kind, place = operator_name(node).removeprefix("quantized_decomposed."), place_of(node).module_path
    if node in asked.islands:
        return AskedOperator(kind, Verdict.RUNS, place=place)
    if not _has_kernel(node, kernels):
        return AskedOperator(kind, Verdict.REFUSED, _NO_KERNEL.format(backend=backend), place)
    reason = asked.reasons.get(node) or _LEFT_ALONE.format(backend=backend)
    return AskedOperator(kind, Verdict.FALLS_BACK, reason, place)


def _is_operator(node: Node) -> bool:
    """Whether a node computes; tuple access and arithmetic with shapes do not."""
    return node.op == "call_function" and hasattr(node.target, "_schema") and "sym_" not in operator_name(node)


def _kernels() -> frozenset[str]:
    """The operators of which the runtime beside this exporter has a kernel of any overload, such as `aten::add`."""
    from executorch.extension.pybindings import _C

    names: Iterable[str] = _C._get_operator_names()  # noqa: SLF001 - the bindings' only way
    return frozenset(name.partition(".")[0] for name in names)


def _has_kernel(node: Node, kernels: frozenset[str]) -> bool:
    """Whether the portable kernels run a node, or those that ExecuTorch decomposes it into, as it does with what its
    backend leaves.
    """
    schema = node.target._schema  # type: ignore[union-attr]  # noqa: SLF001 - an operator's, see `_is_operator`
    packet, overload = schema.name, schema.overload_name or "default"
    own: Any = getattr(getattr(torch.ops, packet.partition("::")[0]), packet.partition("::")[2], None)
    is_decomposed = getattr(own, overload, None) in torch.export.default_decompositions()
    return packet in kernels or is_decomposed


@contextmanager
def _skips_of_vulkan() -> Iterator[dict[Node, str]]:
    """Within, the reasons that Vulkan's partitioner only logs, by the node that it leaves out."""
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanSupportedOperators

    skips: dict[Node, str] = {}
    log_skip = VulkanSupportedOperators.log_skip

    def keep(_self: Any, node: Node, reason: str) -> None:
        skips[node] = str(reason)

    VulkanSupportedOperators.log_skip = keep
    try:
        yield skips
    finally:
        VulkanSupportedOperators.log_skip = log_skip
