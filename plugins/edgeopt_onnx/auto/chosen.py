"""Which costs precision "auto" goes by: recorded, measured on this machine, or those of a file.

Light until it measures.

What is measured is kept for the next time, in `edgeopt/onnx-costs` of the user's cache folder, by processor and version
of ONNX Runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

from edgeopt.files import user_cache
from edgeopt.plugins import Problem, UserError, digest, versions_of
from edgeopt_onnx.auto.costs import OPTION, X86_VNNI, Costs, kept_costs, read_costs
from edgeopt_onnx.auto.processor import Processor, this_processor

Source: TypeAlias = Literal["x86-vnni", "measured", "file"]
RECORDED: Source = "x86-vnni"
MEASURED: Source = "measured"
_SUITS = {"x86": ("x86_64",), "arm": ("aarch64", "armv7l", "armv8l")}


@dataclass(frozen=True)
class Choice:
    """Where the costs of one export come from; `file` is that of measured ones, or the one that the recipe names."""

    source: Source
    processor: Processor
    file: Path | None = None

    @property
    def fingerprint(self) -> str:
        """A text that changes with the costs: what a stored export was made by.

        Measured costs are named by the processor and the runtime, as they may not be there yet.
        """
        if self.source == "file":
            assert self.file is not None
            return read_costs(self.file).fingerprint
        return X86_VNNI.fingerprint if self.source == RECORDED else _key(self.processor)

    def costs(self) -> Costs:
        """The costs themselves, measured now where they must be. Raises `UserError` for a file with mistakes."""
        if self.file is None:
            return X86_VNNI
        if self.source == "file" or self.file.is_file():
            return read_costs(self.file)
        return kept_costs(self.file, partial(_measured, self.processor))


def choose(costs: str | None, target: str) -> Choice:
    """The choice of an export for `target`, "x86" or "arm", where the recipe says `costs`.

    Left out, the recorded costs are taken on a processor as that which they were measured on, and others measure.

    Raises `UserError` when the costs are of a processor that is none of the target's, or a file has mistakes.
    """
    processor = this_processor()
    source: Source
    if costs is None:
        source = RECORDED if processor.has_avx512_vnni and target == "x86" else MEASURED
    else:
        source = RECORDED if costs == RECORDED else MEASURED if costs == MEASURED else "file"
    file = Path(costs) if source == "file" and costs else None if source == RECORDED else _file(processor)
    choice = Choice(source, processor, file)
    architecture = X86_VNNI.architecture if source == RECORDED else processor.architecture
    if source == "file":
        architecture = choice.costs().architecture
    if architecture not in _SUITS.get(target, ()):
        raise UserError(
            Problem(
                f"the costs are those of a processor of architecture {architecture!r}, and the target is {target!r}",
                "run `python -m edgeopt_onnx.auto.measure FILE` on the device, and take costs = FILE",
                option=OPTION,
            )
        )
    return choice


def _key(processor: Processor) -> str:
    return digest([processor.key, versions_of(["onnxruntime"])])


def _file(processor: Processor) -> Path:
    return user_cache() / "onnx-costs" / f"{_key(processor)[:16]}.toml"


def _measured(processor: Processor) -> Costs:
    from edgeopt_onnx.auto.measure import measured  # numpy, onnx and onnxruntime are heavy

    return measured(processor)
