"""What an accelerator takes of a program, told before anything is trained, for `edgeopt check --target`. Light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgeopt.errors import PluginError

if TYPE_CHECKING:
    from edgeopt.types import ModelState


class Verdict(StrEnum):
    """What becomes of an operator: `REFUSED` where neither the accelerator nor the CPU beside it runs it."""

    RUNS = "runs there"
    FALLS_BACK = "falls back to CPU"
    REFUSED = "refused"


@dataclass(frozen=True)
class AskedOperator:
    """An operator, as whoever was asked sees it: `kind` in the words of the program or of the file, `place` the module
    or the tensor that it computes, and for one that does not run there the `reason`.
    """

    kind: str
    verdict: Verdict
    reason: str = ""
    place: str = ""


@dataclass(frozen=True)
class AcceleratorAnswer:
    """All operators in the order of execution, and in how many `islands` those stand that run there: each is one call
    of the accelerator, and between two of them data goes to the CPU and back. `source` names who was asked, with the
    version, or the table that was read.
    """

    operators: tuple[AskedOperator, ...]
    islands: int
    source: str


@dataclass(frozen=True)
class AcceleratorRequest:
    """What is asked about: a state in program form with whatever the exporter's options put before and behind it, and
    `write`, which exports it and returns the file. Weights have learned nothing; shapes, types and operators are those
    of the files that a run would make.
    """

    state: ModelState
    options: Any
    write: Callable[[], Path]


@dataclass(frozen=True)
class Accelerator:
    """A processor that runs some operators of an exporter's files, by the name that `edgeopt check --target` takes.

    `ask(request)` gives a verdict on each operator, without the processor: by the vendor's own tool where it runs here,
    else by a table with its source. It raises an `ExportError` for a program that is refused as a whole. `requires` and
    `install` are those of what is asked, as far as the exporter does not need it.
    """

    kind: ClassVar[str] = "target"

    name: str
    summary: str
    ask: Callable[[AcceleratorRequest], AcceleratorAnswer]
    requires: tuple[str, ...] = field(default=(), kw_only=True)
    install: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if self.requires and not self.install:
            raise PluginError(f"accelerator {self.name!r} requires packages and does not say how they are installed")
