"""From an eager module to an exported program with a dynamic batch."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from edgeopt_torchao.agreement import compare
from edgeopt_torchao.errors import CaptureError, FunctionChangedError

RELATIVE_TOLERANCE = 1e-4  # of the logits' range: float32 kernels may add in another order, and nothing more


def capture(module: nn.Module, example_input: Tensor, batch_range: tuple[int, int]) -> ExportedProgram:
    """Export a copy of `module` in evaluation mode, and check that the program computes what the module does.

    Post-training quantization, quantization-aware training and float exports all start from this one program. An
    evaluation-mode capture is deliberate also for training: a training-mode one would bake random operators such as
    stochastic depth into the program, where nothing can switch them off again; `prepare_qat` brings BatchNorm and
    Dropout back as modules that follow `train()` and `eval()`.

    `example_input` is float32 (batch, channels, height, width); `batch_range` is the smallest and largest batch that the
    program takes. Weights are made contiguous: ExecuTorch's layout pass refuses channels-last constants.

    Raises `CaptureError` when `torch.export` cannot capture the module, `FunctionChangedError` when the logits differ.
    """
    module = copy.deepcopy(module).eval()
    make_contiguous(module)
    program = export_program(module, example_input, batch_range)
    agreement = compare(module, program.module(), [_fit_batch(example_input, batch_range)])
    if not agreement.relative_difference <= RELATIVE_TOLERANCE:  # written so that NaN fails too
        raise FunctionChangedError(
            f"the captured program of {type(module).__name__} differs from the module by "
            f"{agreement.max_logit_difference:.3g} in its logits, whose range is {agreement.logit_range:.3g}",
            "look for a forward that is random in evaluation mode, or that depends on something besides its input",
        )
    return program


def export_program(module: nn.Module, example_input: Tensor, batch_range: tuple[int, int]) -> ExportedProgram:
    """Export `module` as it stands, for any batch in `batch_range`.

    Raises `CaptureError` with the module's type and the first line of what `torch.export` says.
    """
    smallest, largest = batch_range
    if not 1 <= smallest <= largest:
        raise CaptureError(f"the batch range {smallest}..{largest} is empty", "use 1 <= smallest <= largest")
    shapes = None if smallest == largest else ({0: Dim("batch", min=smallest, max=largest)},)
    try:
        with torch.no_grad():
            return torch.export.export(module, (_fit_batch(example_input, batch_range),), dynamic_shapes=shapes)
    except Exception as error:  # torch.export raises many types; all mean that this forward cannot be captured
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CaptureError(
            f"{type(module).__name__} cannot be exported: {reason}",
            "its forward may branch on the values of a tensor, or fix the batch size in a reshape",
        ) from error


def make_contiguous(module: nn.Module) -> None:
    """Give every parameter and buffer of `module` the plain, contiguous layout, in place."""
    for tensor in [*module.parameters(), *module.buffers()]:
        tensor.data = tensor.data.contiguous()


def _fit_batch(example_input: Tensor, batch_range: tuple[int, int]) -> Tensor:
    """`example_input`, repeated or cut until its batch is in range, and above 1 where the range allows it.

    `torch.export` takes a size of 0 or 1 in the example for a constant.
    """
    smallest, largest = batch_range
    batch = min(max(len(example_input), smallest, 2), largest)
    return example_input.detach()[torch.arange(batch) % len(example_input)].contiguous()
