"""What exporters and predictors have in common. Light: numpy and torch appear in annotations only."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.errors import ExportError, Problem
from edgeopt.networks.bits import CONTAINER_BITS, narrow_activations
from edgeopt.networks.layers import module_path, operator_name
from edgeopt.plugins.declarations import Scheme

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

    from edgeopt.plugins.declarations import Numerics


#: What a runtime takes that runs a layer in integers only where its output is quantized as well.
OUTPUTS_QUANTIZED = (Scheme.INT8_AFFINE, Scheme.INT8_SYMMETRIC)
#: What a runtime takes that knows no zero points.
NO_ZERO_POINTS = (Scheme.INT8_SYMMETRIC, Scheme.INT8_SYMMETRIC_INPUTS)


@dataclass(frozen=True)
class OperatorPlace:
    """An operator, such as `aten.cumsum.default`, and the path of its module in the user's model,
    empty where unknown.
    """

    operator: str
    module_path: str

    def __str__(self) -> str:
        return f"{self.operator} (in {self.module_path})" if self.module_path else self.operator


def place_of(node: Node) -> OperatorPlace:
    """An operator of a captured graph with the path of its module."""
    return OperatorPlace(operator_name(node), module_path(node))


def unsupported(runtime: str, places: Iterable[OperatorPlace], reason: str) -> ExportError:
    """The error for operators that a runtime cannot run."""
    names = ", ".join(str(place) for place in places)
    return ExportError(
        Problem(
            f"{runtime} cannot run {names}: {reason}", "replace the operator in the model, or leave this export out"
        )
    )


def not_converted(said: str) -> ExportError:
    """The error for a model that a runtime, or what writes its files, does not take for the reason that it says."""
    return ExportError(Problem(said, "replace what it names in the model, or leave this export out"))


def require_one_image(program: ExportedProgram, runtime: str) -> None:
    """Raises `ExportError`, naming them, where a program has several inputs."""
    names = program.graph_signature.user_inputs
    if len(names) != 1:
        raise ExportError(
            Problem(
                f"the model has {len(names)} inputs: {', '.join(map(str, names))}",
                f"edgeopt exports models of one image to {runtime}; wrap the model so that it has one input",
            )
        )


def require_named_outputs(program: ExportedProgram, names: Sequence[str]) -> None:
    """Raises `ExportError` where a program does not return as many outputs as there are names for."""
    count = len(program.graph_signature.user_outputs)
    if count != len(names):
        said = f"{count} outputs" if count != 1 else "one output"
        raise ExportError(
            Problem(
                f"the program returns {said}, and its state names {len(names)}: {', '.join(names)}",
                "let `ModelState.output_names` name each of them, or capture the model with these names",
            )
        )


def float_programs_only(precision: str, numerics: Numerics) -> Iterator[Problem]:
    """The problem of a precision that an exporter makes of a float program, in a recipe that quantizes; for `check`.
    "program" is none of them.
    """
    if numerics.quantizers and precision != "program":
        quantizer = numerics.quantizers[-1]
        yield Problem(
            f"precision {precision!r} is made of a float program, "
            f"and quantizer {quantizer.name!r} makes it {quantizer.precision}",
            'leave the quantizing pass out, or take precision = "program"',
            option="precision",
        )


def not_made_of(program: str, precision: str) -> Problem:
    """The problem of a precision that an exporter makes of a float program, for one that has another; see
    `float_programs_only` for the same in `check`.
    """
    return Problem(
        f"precision {precision!r} is made of a float program, and this one is {program}",
        "leave `precision` out, or the pass that quantizes",
        option="precision",
    )


def whole_activations_only(exporter: str, reason: str, numerics: Numerics) -> Iterator[Problem]:
    """The problem of activations of fewer than eight bits, in a recipe; for `check`. `reason` says what the runtime
    does in place of rounding to them.
    """
    if numerics.bits.activations < CONTAINER_BITS:
        yield _narrow(exporter, reason, numerics.bits.activations)


def require_whole_activations(exporter: str, reason: str, program: ExportedProgram) -> None:
    """Raises `ExportError` where an activation of a program takes fewer than eight bits; the rest is as above."""
    if narrow := narrow_activations(program):
        raise ExportError(_narrow(exporter, reason, min(each.bits for _, each in narrow)))


def _narrow(exporter: str, reason: str, bits: int) -> Problem:
    return Problem(
        f"{reason}, and those of this program take {bits} bits",
        f"give the activations 8 bits for `{exporter}`, or export with `onnx`, which saturates any",
    )


def other_schemes(
    runtime: str, takes: Collection[Scheme], numerics: Numerics, hint: str, option: str | None = None
) -> Iterator[Problem]:
    """The problems of quantizers whose scheme is none of those that a runtime takes; for `check`.

    A quantizer that does not say its scheme is refused like one of another scheme: what it gives is not known.
    """
    for quantizer in numerics.quantizers:
        if quantizer.scheme in takes:
            continue
        reasons = {
            Scheme.INT8_AFFINE: f"gives zero points, and {runtime} takes none",
            Scheme.INT8_SYMMETRIC_INPUTS: f"leaves outputs in float: {runtime} finds no layer to run in integers",
            Scheme.UNKNOWN: f"does not say its scheme, and {runtime} takes {' or '.join(takes)}",
        }
        reason = reasons.get(
            Scheme(quantizer.scheme), f"is of scheme '{quantizer.scheme}', which {runtime} does not take"
        )
        declare = "if it is of such a scheme, let its QuantizerPlugin say so with `scheme`; else "
        unknown = quantizer.scheme is Scheme.UNKNOWN
        yield Problem(f"quantizer {quantizer.name!r} {reason}", declare + hint if unknown else hint, option=option)
