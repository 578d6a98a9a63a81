"""What exporters and predictors have in common. Light: numpy and torch appear in annotations only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.errors import ExportError, Problem

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from edgeopt.plugins.declarations import Numerics


@dataclass(frozen=True)
class OperatorPlace:
    """An operator, such as `aten.cumsum.default`, and the path of its module in the user's model,
    empty where unknown.
    """

    operator: str
    module_path: str

    def __str__(self) -> str:
        return f"{self.operator} (in {self.module_path})" if self.module_path else self.operator


def unsupported(runtime: str, places: Iterable[OperatorPlace], reason: str) -> ExportError:
    """The error for operators that a runtime cannot run."""
    names = ", ".join(str(place) for place in places)
    return ExportError(
        Problem(
            f"{runtime} cannot run {names}: {reason}", "replace the operator in the model, or leave this export out"
        )
    )


def require_one_image(program: ExportedProgram, runtime: str) -> None:
    """Raises `ExportError`, naming them, where a program has several inputs or outputs."""
    signature = program.graph_signature
    for what, names in (("input", signature.user_inputs), ("output", signature.user_outputs)):
        if len(names) != 1:
            raise ExportError(
                Problem(
                    f"the model has {len(names)} {what}s: {', '.join(map(str, names))}",
                    f"edgeopt exports models of one image and its logits to {runtime}; "
                    f"wrap the model so that it has one {what}",
                )
            )


def float_programs_only(precision: str, numerics: Numerics) -> Iterator[Problem]:
    """The problem of a precision that an exporter makes of a float program, in a recipe that quantizes; for `check`."""
    if numerics.quantizers:
        quantizer = numerics.quantizers[-1]
        yield Problem(
            f"precision {precision!r} is made of a float program, "
            f"and quantizer {quantizer.name!r} makes it {quantizer.precision}",
            'leave the quantizing pass out, or take precision = "program"',
            option="precision",
        )


def outputs_in_integers(runtime: str, numerics: Numerics) -> Iterator[Problem]:
    """The problem of a quantizer that leaves a layer's outputs in float, for a runtime that then finds nothing; for
    `check`.
    """
    for quantizer in numerics.quantizers:
        if quantizer.scheme == "int8-symmetric-inputs":
            yield Problem(
                f"quantizer {quantizer.name!r} leaves outputs in float: {runtime} finds no layer to run in integers",
                'take quantizer = "xnnpack", or "xnnpack-symmetric" for one program that TensorRT takes as well',
            )
