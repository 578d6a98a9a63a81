"""Precisions that an export gives a float program: float16, and int8 with activation ranges found at run time."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from edgeopt.networks.batch_norms import fold_batch_norms, hide_batch_norms, show_batch_norms
from edgeopt.networks.capture import example_of, require_same_function
from edgeopt.networks.outputs import tensors
from edgeopt.networks.tensors import named_tensor, set_named_tensor
from edgeopt.plugins import ExportError, NothingChangedError
from edgeopt_executorch.quantizer import build_xnnpack_dynamic

aten = torch.ops.aten

_LEAST_FLOAT16 = torch.finfo(torch.float16).tiny
_NORMALIZES = (aten.to.dtype, aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor, aten.div.Tensor, aten.permute.default)
_CHECKS_TYPE = aten._assert_tensor_metadata.default  # noqa: SLF001 - torch.export puts it before each cast
_GUARDS = (
    aten.clamp_min.default,
    aten.clamp.default,
    aten.add.Tensor,
    aten.add_.Tensor,
    aten.cosine_similarity.default,
)

FLOAT16_TOLERANCE = 0.05  # of the logits' range: eleven bits of mantissa, added up over a deep network


def to_float16(program: ExportedProgram) -> ExportedProgram:
    """The program in half precision, with weights of half the size; its input and output stay as they are.

    Raises `ExportError` when half precision cannot hold the values.
    """
    module = copy.deepcopy(program.module(check_guards=False))  # the program's own weights stay as they are
    kept = _normalize_pixels_in_float32(module)
    _spell_out_hard_activations(module)
    _normalize_layers_in_float32(module)
    _raise_small_constants(module)
    example = example_of(program)
    converted = _recaptured(_InHalfPrecision(module, kept), program)
    answers = tensors(converted.module(check_guards=False)(example))
    if not all(bool(torch.isfinite(each).all()) for each in answers):
        raise ExportError(
            "a value of this model is too large for float16, or one that it divides by too small",
            hint='leave precision = "program"',
        )
    require_same_function(
        program.module(check_guards=False),
        converted.module(check_guards=False),
        example,
        "converting to float16",
        tolerance=FLOAT16_TOLERANCE,
        hint='its values need more than float16 has: leave precision = "program"',
    )
    return converted


def to_dynamic_int8(program: ExportedProgram) -> ExportedProgram:
    """The program with int8 weights, and activations that are quantized by the range that they have at run time.

    Raises `NothingChangedError` when it has no layer that XNNPACK runs like that.
    """
    module = program.module(check_guards=False)
    fold_batch_norms(module)
    hide_batch_norms(module, behind_layers=True)
    prepared = prepare_pt2e(module, build_xnnpack_dynamic())
    show_batch_norms(prepared)
    with torch.no_grad():
        prepared(example_of(program))  # the weights' ranges are seen here; those of activations are not kept
    converted = convert_pt2e(prepared, fold_quantize=True)
    if not any("choose_qparams" in str(node.target) for node in converted.graph.nodes):
        raise NothingChangedError(
            "no layer of this model can be quantized dynamically",
            hint="convolutions need a pass that calibrates, such as `ptq`",
        )
    return _recaptured(converted, program)


class _InHalfPrecision(nn.Module):
    """A program whose float32 tensors are float16 but for those in `kept`; pixels go in as they are."""

    def __init__(self, module: GraphModule, kept: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.module = module.to(torch.float16)
        for name, value in kept.items():
            set_named_tensor(self.module, name, value)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        answer = self.module(images.to(torch.float16) if images.is_floating_point() else images)
        outputs = tuple(each.to(torch.float32) if each.is_floating_point() else each for each in tensors(answer))
        return outputs[0] if len(outputs) == 1 else outputs


def _recaptured(module: nn.Module, program: ExportedProgram) -> ExportedProgram:
    """`module` captured for the batches that `program` takes."""
    (name,) = program.graph_signature.user_inputs
    value = next(node for node in program.graph.nodes if node.name == name).meta["val"]
    shapes = None
    if not isinstance(value.shape[0], int):
        (bounds,) = program.range_constraints.values()  # the batch alone is free
        shapes = ({0: torch.export.Dim("batch", min=int(bounds.lower), max=int(bounds.upper))},)
    with torch.no_grad():
        return torch.export.export(module, (example_of(program),), dynamic_shapes=shapes)


def _normalize_pixels_in_float32(module: GraphModule) -> dict[str, Tensor]:
    """Casts to float16 after the arithmetic that a program of pixels begins with; returns its constants by name.

    float16 holds 255, but not the small difference of two large numbers that normalization is.
    """
    graph = module.graph
    (last,) = (node for node in graph.nodes if node.op == "placeholder")
    if last.meta["val"].is_floating_point():
        return {}
    names: set[str] = set()
    while len(readers := [user for user in last.users if user.target is not _CHECKS_TYPE]) == 1:
        constants = [each for each in readers[0].all_input_nodes if each is not last]
        if readers[0].target not in _NORMALIZES or any(each.op != "get_attr" for each in constants):
            break
        last = readers[0]
        names.update(str(each.target) for each in constants)
    with graph.inserting_after(last):
        halved = graph.call_function(aten.to.dtype, (last, torch.float16))
    halved.meta["nn_module_stack"] = last.meta.get("nn_module_stack", {})
    is_own = (halved, *(user for user in last.users if user.target is _CHECKS_TYPE))
    last.replace_all_uses_with(halved, delete_user_cb=lambda user: user not in is_own)
    module.recompile()
    return {name: named_tensor(module, name).clone() for name in names}


def _normalize_layers_in_float32(module: GraphModule) -> None:
    """Casts to float32 before each LayerNorm and back after it, as autocast does.

    ExecuTorch's kernel adds up in float16, which is far off from a few hundred values on.
    """
    graph = module.graph
    for node in list(graph.nodes):
        if node.target is not aten.layer_norm.default:
            continue
        stack = {"nn_module_stack": node.meta.get("nn_module_stack", {})}
        with graph.inserting_before(node):
            for place, argument in enumerate(node.args):
                if isinstance(argument, Node):
                    cast = graph.call_function(aten.to.dtype, (argument, torch.float32))
                    cast.meta.update(stack)
                    node.update_arg(place, cast)
        with graph.inserting_after(node):
            halved = graph.call_function(aten.to.dtype, (node, torch.float16))
        halved.meta.update(stack)
        node.replace_all_uses_with(halved, delete_user_cb=lambda user, halved=halved: user is not halved)
    module.recompile()


def _raise_small_constants(module: GraphModule) -> None:
    """Raises constants that are zero in float16 to its least normal number.

    Such constants keep a divisor from zero, as the 1e-12 of `functional.normalize` does;
    the larger number does so too.
    """

    def raised(value: object) -> object:
        return _LEAST_FLOAT16 if isinstance(value, float) and 0 < value < _LEAST_FLOAT16 else value

    for node in module.graph.nodes:
        if node.target in _GUARDS:
            node.args = tuple(map(raised, node.args))
            node.kwargs = {name: raised(value) for name, value in node.kwargs.items()}
    module.recompile()


def _spell_out_hard_activations(module: GraphModule) -> None:
    """Writes hard-swish and hard-sigmoid as additions and clamps.

    torch's own decomposition computes in float32, with a cast on either side.
    """
    graph = module.graph
    for node in list(graph.nodes):
        if node.target not in (
            aten.hardswish.default,
            aten.hardswish_.default,
            aten.hardsigmoid.default,
            aten.hardsigmoid_.default,
        ):
            continue
        value: Node = node.args[0]
        with graph.inserting_before(node):
            shifted = graph.call_function(aten.add.Tensor, (value, 3.0))
            clamped = graph.call_function(aten.clamp.default, (shifted, 0.0, 6.0))
            gate = graph.call_function(aten.mul.Tensor, (clamped, 1.0 / 6.0))
            is_swish = node.target in (aten.hardswish.default, aten.hardswish_.default)
            result = graph.call_function(aten.mul.Tensor, (value, gate)) if is_swish else gate
        for new in (shifted, clamped, gate, result):
            new.meta["nn_module_stack"] = node.meta.get("nn_module_stack", {})
        node.replace_all_uses_with(result)
        graph.erase_node(node)
    module.recompile()
