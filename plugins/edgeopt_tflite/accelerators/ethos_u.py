"""What Arm's Ethos-U runs of a `.tflite` file and how fast, by Arm's own compiler: Vela compiles the file, and what it
leaves in it is the CPU's.
"""

from __future__ import annotations

import csv
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt.export.compilers import run_compiler
from edgeopt.plugins import (
    AcceleratorAnswer,
    AcceleratorRequest,
    AskedOperator,
    CycleEstimate,
    ExportError,
    Verdict,
    installed_version,
)
from edgeopt_tflite.graph import Graph

PROCESSOR = "ethos-u55-128"
"""The smallest family, which takes the fewest operators: what it runs, Ethos-U65 and U85 run as well."""
_VELA = "ethosu.vela"
_COMPILED = "CUSTOM"  # an operator of the compiled file that stands for a piece that the accelerator runs
_REASON = re.compile(r"^Warning \(supported operators\) operator: \w+, ofm: '(.*)'\nReason: (.*)$", re.MULTILINE)
_TENSOR = re.compile(r" \([^)]*\)$")  # which of its tensors a reason is about
_UNREAD = "Failed to parse TFLite file"  # the end of every complaint
_UNTOLD = "Vela leaves it to the CPU, and does not say why"
_MEMORY = "_memory_used"  # how the columns of its summary end that tell the KiB of a kind of memory


@dataclass(frozen=True)
class _Compiled:
    """What Vela made of a file, what it said, and its summary by the names of the columns."""

    graph: Graph
    said: str
    summary: dict[str, str]


def ask(request: AcceleratorRequest) -> AcceleratorAnswer:
    """Compiles the file that a run would write.

    Raises `ExportError` where Vela does not take it.
    """
    return judge(request.write())


def judge(file: Path) -> AcceleratorAnswer:
    """A verdict on each operator of a file."""
    made = _compiled(file, PROCESSOR)
    left = made.graph
    reasons = {name: _TENSOR.sub("", reason) for name, reason in _REASON.findall(made.said)}
    on_cpu = {_computed(left, operator) for operator in left.operators if left.kind(operator) != _COMPILED}
    given = Graph(file.read_bytes())
    asked = []
    for operator in given.operators:
        name = _computed(given, operator)
        verdict = Verdict.FALLS_BACK if name in on_cpu else Verdict.RUNS
        reason = reasons.get(name, _UNTOLD) if name in on_cpu else ""
        asked.append(AskedOperator(given.kind(operator), verdict, reason, name))
    return AcceleratorAnswer(tuple(asked), left.kinds()[_COMPILED], f"{_version()}, for {PROCESSOR}")


def estimate(file: Path, processor: str) -> CycleEstimate:
    """What Vela expects an image to cost on a processor, in the system that Vela assumes around it.

    Raises `ExportError` where Vela does not take the file.
    """
    try:
        made = _compiled(file, processor)
    except ExportError as error:
        hint = "ask for no estimate, or replace what it names in the model"
        raise ExportError(error.problems[0].message, hint=hint) from error
    told = made.summary
    memory = {
        column.removesuffix(_MEMORY): round(float(kib) * 1024)
        for column, kib in told.items()
        if column.endswith(_MEMORY) and float(kib)
    }
    return CycleEstimate(
        processor,
        f"{_version()}, {told['system_config']}, {told['memory_mode']}",
        cycles=int(float(told["cycles_total"])),
        clock_mhz=float(told["core_clock"]) / 1e6,
        images_per_second=float(told["inferences_per_second"]),
        on_cpu=made.graph.kinds().total() - made.graph.kinds()[_COMPILED],
        memory_bytes=memory,
    )


def _compiled(file: Path, processor: str) -> _Compiled:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", _VELA, "--accelerator-config", processor, "--output-dir", name]
        done = run_compiler([*command, str(file.resolve())], folder)
        compiled = folder / f"{file.stem}_vela.tflite"
        if done.returncode or not compiled.is_file():
            raise ExportError(f"Vela does not compile the file: {_complaint(done.stdout + done.stderr)}")
        (summary,) = folder.glob(f"{file.stem}_summary_*.csv")
        (row,) = csv.DictReader(summary.read_text().splitlines())
        return _Compiled(Graph(compiled.read_bytes()), done.stdout, row)


def _version() -> str:
    return f"Vela {installed_version('ethos-u-vela')}"


def _computed(graph: Graph, operator: Any) -> str:
    """The name of the first tensor that an operator computes."""
    return graph.name(int(operator.outputs[0]))


def _complaint(text: str) -> str:
    """What Vela says of a file that it refuses, in a line."""
    said = text.rpartition("Compilation failed:")[2].replace(_UNREAD, "")
    return " ".join(said.split()).removeprefix("Error: ").rstrip(", ") or "it says nothing"
