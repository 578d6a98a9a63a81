"""From a module to a captured program, and what a program answers.

Capture is one of the steps that must keep the function; it is checked here, each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgeopt.arrays import InputKind, Json, as_outputs, joined
from edgeopt.errors import ExportError, FunctionChangedError, Problem, first_line
from edgeopt.networks.branches import merge_branches
from edgeopt.networks.clips import spell_out_relu6
from edgeopt.networks.computed_weights import fold_computed_weights
from edgeopt.networks.copies import copy_module
from edgeopt.networks.layers import layer_call, spell_out_linear_layers
from edgeopt.networks.outputs import (
    differences,
    give_order,
    outputs_in,
    problem_of_outputs,
    tensors,
    tolerated,
)
from edgeopt.networks.padding import spell_out_padding
from edgeopt.networks.pooling import spell_out_adaptive_maxima
from edgeopt.types import ONLY_LOGITS, TORCH, Form, ModelState, Split

if TYPE_CHECKING:  # torch is heavy: whoever captures has imported it already
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    from edgeopt.arrays import Outputs, Pixels
    from edgeopt.progress import Progress
    from edgeopt.tasks.base import Task

RELATIVE_TOLERANCE = 1e-4  # of an output's range: float32 kernels may add in another order, and differ in nothing else
BATCH_SIZE = 32
_BUG = "this is a bug in edgeopt or in a library below it: please report the model and the recipe"
_OWN_NAMESPACES = {"aten", "prims", "quantized_decomposed"}


@dataclass(frozen=True)
class Capture:
    """A captured program, and the weights of the convolutions that took parallel branches in."""

    program: ExportedProgram
    branches_merged: tuple[str, ...]

    def facts(self) -> dict[str, Json]:
        """What a record says of it."""
        return {"branches_merged_into": len(self.branches_merged)} if self.branches_merged else {}


def capture(
    module: nn.Module,
    example_input: Tensor,
    batch_range: tuple[int, int],
    output_names: Sequence[str] = ONLY_LOGITS,
) -> ExportedProgram:
    """The program that `capture_merged` captures."""
    return capture_merged(module, example_input, batch_range, output_names).program


def capture_state(state: ModelState, example_input: Tensor) -> Capture:
    """Captures the module of a state with its outputs, which must be what its task asks for; see `capture_merged`."""
    return capture_merged(state.module, example_input, state.batch_range, state.output_names, state.task)


def capture_merged(
    module: nn.Module,
    example_input: Tensor,
    batch_range: tuple[int, int],
    output_names: Sequence[str] = ONLY_LOGITS,
    task: Task | None = None,
) -> Capture:
    """Exports a copy of `module` in evaluation mode, and checks that the program computes what the module does.

    Here the float model ends: branches that were trained side by side become the one convolution that they add up to.

    `example_input` is float32 (batch, channels, height, width); `batch_range` is the smallest and largest batch that
    the program takes. Weights are made contiguous: ExecuTorch's layout pass refuses channels-last constants. The
    program returns what `output_names` name, see `edgeopt.networks.outputs.outputs_in`: one tensor, or a tuple.

    Raises `ExportError` when `torch.export` cannot capture the module, or when it returns something else than these
    outputs, `FunctionChangedError` when an output differs.
    """
    module = copy_module(module).cpu().eval()
    make_contiguous(module)
    batch = fit_batch(example_input, batch_range)
    program = export_program(module, example_input, batch_range)
    _require_outputs(module, batch, batch_range[0], output_names, task)
    captured = program.module(check_guards=False)
    changed = give_order(captured, output_names)
    changed |= bool(spell_out_linear_layers(captured) + fold_computed_weights(captured))
    merged = merge_branches(captured)
    if changed or merged:
        program = export_program(captured, example_input, batch_range)
        captured = program.module(check_guards=False)
    require_same_function(
        lambda images: outputs_in(module(images), output_names),
        captured,
        batch,
        f"capturing {type(module).__name__}",
        hint="look for a forward that is random in evaluation mode, or that depends on something besides its input",
    )
    return Capture(program, merged)


def parallel_branches(module: nn.Module, example_input: Tensor, batch_range: tuple[int, int]) -> tuple[str, ...]:
    """The layers of `module` that `capture_merged` adds up to fewer, by their names in it, in the order in which they
    run; what is done to one of them alone is lost there.

    Raises `ExportError` when `torch.export` cannot capture the module.
    """
    module = copy_module(module).cpu().eval()
    captured = export_program(module, example_input, batch_range).module(check_guards=False)
    fold_computed_weights(captured)
    before = _layer_weights(captured)
    taking = merge_branches(captured)
    left = set(_layer_weights(captured)) - set(taking)
    return tuple(dict.fromkeys(each.rpartition(".")[0] for each in before if each not in left))


def _layer_weights(model: GraphModule) -> list[str]:
    layers = filter(None, map(layer_call, model.graph.nodes))
    return [str(each.weight.target) for each in layers if each.weight.op == "get_attr"]


def _require_outputs(module: nn.Module, batch: Tensor, smallest: int, names: Sequence[str], task: Task | None) -> None:
    """Raises `ExportError` where a module returns something else for `batch`, or for its first `smallest` images,
    than the named outputs.
    """
    import torch

    for count in sorted({smallest, len(batch)}):
        images = batch[:count]
        with torch.no_grad():
            answer = module(images)
        if problem := problem_of_outputs(type(module).__name__, answer, len(images), names, task):
            raise ExportError(problem)


def require_same_function(
    before: Callable[[Tensor], Tensor | tuple[Tensor, ...]],
    after: Callable[[Tensor], Tensor | tuple[Tensor, ...]],
    batch: Tensor,
    step: str,
    *,
    hint: str = _BUG,
    tolerance: float = RELATIVE_TOLERANCE,
) -> None:
    """Raises `FunctionChangedError` when `after` gives other outputs than `before` on `batch`; `step` came between
    them.

    `tolerance` is a share of an output's range; of integers, such as classes, at most one in a thousand may differ.
    """
    import torch

    with torch.no_grad():
        expected, got = tensors(before(batch)), tensors(after(batch))
    if len(expected) != len(got):
        raise FunctionChangedError(f"{step} left {len(got)} of {len(expected)} outputs", hint=hint)
    for place, (difference, span) in enumerate(differences(expected, got)):
        if not difference / span <= tolerated(expected[place], tolerance):  # written so that NaN fails too
            what = "the logits" if len(expected) == 1 else f"output {place + 1} of {len(expected)}"
            raise FunctionChangedError(
                f"{step} changed {what} by {difference:.3g}, whose range is {span:.3g}", hint=hint
            )


def example_of(program: ExportedProgram) -> Tensor:
    """Random images, always the same ones, of the shape that `program` takes: two, or one where its batch is fixed at
    one.
    """
    import torch

    name = program.graph_signature.user_inputs[0]
    (node,) = (node for node in program.graph.nodes if node.op == "placeholder" and node.name == name)
    value = node.meta["val"]
    batch, *image = value.shape
    shape, generator = (1 if batch == 1 else 2, *image), torch.Generator().manual_seed(0)
    if value.dtype == torch.uint8:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return torch.randn(shape, generator=generator)


def make_contiguous(module: nn.Module) -> None:
    """Gives every parameter and buffer the plain, contiguous layout, in place."""
    for tensor in [*module.parameters(), *module.buffers()]:
        tensor.data = tensor.data.contiguous()


def export_program(module: nn.Module, example_input: Tensor, batch_range: tuple[int, int]) -> ExportedProgram:
    """Exports `module` as it stands, for any batch in `batch_range`.

    Raises `ExportError` with the module's type and the first line of what `torch.export` says.
    """
    import torch
    from torch.export import Dim

    smallest, largest = batch_range
    if not 1 <= smallest <= largest:
        raise ExportError(f"the batch range {smallest}..{largest} is empty", hint="use 1 <= smallest <= largest")
    shapes = None if smallest == largest else ({0: Dim("batch", min=smallest, max=largest)},)
    try:
        with torch.no_grad():
            program = torch.export.export(module, (fit_batch(example_input, batch_range),), dynamic_shapes=shapes)
    except Exception as error:  # torch.export raises many types; all mean that this forward cannot be captured
        reason = first_line(error)
        raise ExportError(
            Problem(
                f"{type(module).__name__} cannot be captured: {reason}",
                "its forward may branch on the values of a tensor, or fix the batch size in a reshape, "
                "as len(x) does and x.shape[0] does not",
            )
        ) from error
    spell_out_operators(program)
    return program


def spell_out_operators(program: ExportedProgram) -> None:
    """Replaces, in place, operators that few quantizers and runtimes know by others that do the same."""
    spell_out_adaptive_maxima(program.graph)
    spell_out_padding(program.graph)
    spell_out_relu6(program.graph)
    program.graph_module.recompile()


def fit_batch(example_input: Tensor, batch_range: tuple[int, int]) -> Tensor:
    """`example_input`, repeated or cut until its batch is in range, and above 1 where the range allows it.

    `torch.export` takes a size of 0 or 1 in the example for a constant.
    """
    import torch

    smallest, largest = batch_range
    batch = min(max(len(example_input), smallest, 2), largest)
    return example_input.detach()[torch.arange(batch) % len(example_input)].contiguous()


def to_program(state: ModelState, split: Split) -> ModelState:
    """The state in program form: captured on the first images of `split` where it still is a module.

    Its last record says how many convolutions took parallel branches in, where some did.

    A model of another framework is left as it is: its exporters know how to fix its arithmetic.
    """
    if state.form is Form.PROGRAM or state.framework != TORCH:
        return state
    import torch

    example = torch.from_numpy(state.preprocessing.normalize(split.pixels(range(min(2, len(split))))))
    captured = capture_state(state, example)
    history = state.history
    if history and captured.branches_merged:
        last = history[-1]
        history = (*history[:-1], replace(last, facts={**last.facts, **captured.facts()}))
    imports = imports_of(captured.program, state.imports)
    return replace(state, model=captured.program, form=Form.PROGRAM, imports=imports, history=history)


def imports_of(program: ExportedProgram, imports: tuple[str, ...]) -> tuple[str, ...]:
    """The module's `imports` that its program still needs: none, unless it calls operators that are not torch's own."""
    namespaces = {getattr(node.target, "namespace", "aten") for node in program.graph.nodes}
    return imports if namespaces - _OWN_NAMESPACES else ()


def program_outputs(state: ModelState, split: Split, progress: Progress, label: str) -> Outputs:
    """What a program answers for every image of `split`, an array for each of its outputs, computed by its own
    framework.

    A program that normalizes by itself is fed pixels.
    """

    def feed(pixels: Pixels) -> NDArray[np.float32] | Pixels:
        return pixels if state.input_kind is InputKind.UINT8_NHWC else state.preprocessing.normalize(pixels)

    answer: Callable[[Any], Any] = state.foreign.outputs if state.framework != TORCH else _answers(state.program)
    batch_size = min(BATCH_SIZE, state.batch_range[1])
    rows = []
    with progress.bar(label, len(split)) as bar:
        for start in range(0, len(split), batch_size):
            batch = feed(split.pixels(range(start, min(start + batch_size, len(split)))))
            rows.append(as_outputs(answer(batch)))
            bar.advance(len(batch))
    return joined(rows)


def _answers(program: ExportedProgram) -> Callable[[NDArray[np.float32] | Pixels], Outputs]:
    import torch

    from edgeopt.networks.integer_layers import compute_with_integers  # which imports torch

    module = program.module()
    compute_with_integers(module)

    def answer(batch: NDArray[np.float32] | Pixels) -> Outputs:
        with torch.no_grad():
            return tuple(each.numpy() for each in tensors(module(torch.from_numpy(batch))))

    return answer
