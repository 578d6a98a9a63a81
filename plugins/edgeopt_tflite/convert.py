"""From a program to the bytes of a `.tflite` file, by litert-torch."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from edgeopt.export.predictor import quiet
from edgeopt.export.refusals import place_of, require_one_image, unsupported
from edgeopt.networks.layers import operator_name
from edgeopt.plugins import ExportError, first_line
from edgeopt_tflite.audit import is_quantized
from edgeopt_tflite.float_layers import mark_float_layers, unmark_float_layers
from edgeopt_tflite.graph import Graph
from edgeopt_tflite.int16 import widen_biases
from edgeopt_tflite.transposed import settle_transposed

with quiet():  # importing litert-torch alone writes several warnings
    import litert_torch
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    from edgeopt_tflite.conversion_speed import named_operators, quick_conversion


aten = torch.ops.aten
_EXPANDING = {aten.expand.default, aten.expand_as.default}
_BROADCASTING = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}


class _OneImage(nn.Module):
    """Takes an image with its channels last, as TFLite's kernels and every app have it."""

    def __init__(self, program: nn.Module, channels_last: bool) -> None:
        super().__init__()
        self.program = program
        self.channels_last = channels_last

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The program's outputs for an image (1, height, width, channels)."""
        outputs: Tensor | tuple[Tensor, ...] = self.program(input if self.channels_last else input.permute(0, 3, 1, 2))
        return outputs


def convert(program: ExportedProgram, *, takes_pixels: bool = False) -> bytes:
    """The `.tflite` file of a float program, or of an unfolded integer one; its input is (1, height, width, channels).

    `takes_pixels` says that the program itself takes its channels last.

    Raises `ExportError` when the program has several inputs, or an operator that litert-torch cannot lower.
    """
    sample = _sample(program, takes_pixels)
    # Quantize and dequantize nodes become integer kernels in this mode alone; without it they become float arithmetic.
    quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config())
    numerics = QuantConfig(pt2e_quantizer=quantizer) if is_quantized(program) else None
    plain = _settled(program.module(check_guards=False))
    marked = mark_float_layers(program, plain) if is_quantized(program) else None
    settle_transposed(plain)
    module = _OneImage(plain, takes_pixels)
    module.training = False  # `eval` refuses to go into an exported program, which has no modes
    litert_torch.config.show_progress = False
    # litert-torch, JAX and MLIR raise many types of errors; all mean that it cannot be converted
    with quiet(), quick_conversion():
        try:
            content = _converted(module, sample, numerics)
        except Exception:
            try:  # once more, so that the message has the operator that the model calls, and not one of its parts
                with named_operators():
                    content = _converted(module, sample, numerics)
            except Exception as error:
                raise _explained(error, program) from error
    if marked is None:
        return content
    graph = Graph(content)
    if marked.count:
        unmark_float_layers(graph, marked)
    return graph.to_bytes() if widen_biases(graph) or marked.count else content


def _converted(module: nn.Module, sample: Tensor, numerics: QuantConfig | None) -> bytes:
    content: bytes = litert_torch.convert(module, (sample,), quant_config=numerics).model_content()
    return content


def _settled(module: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """The same function, in operators that litert-torch takes where values lie NHWC in memory, changed in place.

    litert-torch has no views in that layout, and expands sizes in the order of NCHW. Reshaping takes the place of
    views; operators that broadcast need no expanding.
    """
    graph = module.graph
    for node in list(graph.nodes):
        if node.target is aten.view.default:
            node.target = aten.reshape.default
        elif node.target in _EXPANDING and all(_broadcasts(user, node) for user in node.users):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    module.recompile()
    return module


def _broadcasts(reader: torch.fx.Node, expanded: torch.fx.Node) -> bool:
    """Whether an operator's other operand has the shape that `expanded` was brought to."""
    if reader.target not in _BROADCASTING:
        return False
    others = [each for each in reader.all_input_nodes if each is not expanded]
    return any(each.meta["val"].shape == expanded.meta["val"].shape for each in others if "val" in each.meta)


def _sample(program: ExportedProgram, takes_pixels: bool) -> Tensor:
    require_one_image(program, "LiteRT")
    names = program.graph_signature.user_inputs
    (node,) = (node for node in program.graph.nodes if node.op == "placeholder" and node.name == names[0])
    value = node.meta["val"]
    _, *sizes = value.shape
    shape = sizes if takes_pixels else [*sizes[1:], sizes[0]]
    return torch.zeros(1, *shape, dtype=value.dtype)


#: Where litert-torch's messages name an operator: of the model, of its decomposition, or of TFLite's dialect, where
#: names are often the same.
_NAMES = (
    re.compile(r"Original traceback:.*torch\.ops\.(aten\.\w+)", re.DOTALL),
    re.compile(r"Lowering not found: (aten\.\w+)"),
    re.compile(r"While executing .*target=torch\.ops\.(aten\.\w+)"),
    re.compile(r"failed to legalize operation '\w+\.(\w+)'"),
    re.compile(r"error: '\w+\.(\w+)' op"),
)


def _explained(error: Exception, program: ExportedProgram) -> ExportError:
    """The error that names the operator and its module, as far as litert-torch's message tells."""
    message = str(error)
    reason = first_line(error)
    for found in filter(None, (names.search(message) for names in _NAMES)):
        packet = found[1] if found[1].startswith("aten.") else f"aten.{found[1]}"
        for graph in (program.graph, program.run_decompositions().graph):
            places = [place_of(node) for node in graph.nodes if f"{operator_name(node)}.".startswith(f"{packet}.")]
            if places:
                return unsupported("LiteRT", dict.fromkeys(places), f"litert-torch says {reason!r}")
    return ExportError(
        f"litert-torch cannot convert the program: {reason}",
        hint="replace what it names in the model, or leave this export out",
    )
