"""What Arm's Ethos-U runs of a `.tflite` file, by Arm's own compiler: Vela compiles the file, and what it leaves in it
is the CPU's.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgeopt.plugins import (
    AcceleratorAnswer,
    AcceleratorRequest,
    AskedOperator,
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


def ask(request: AcceleratorRequest) -> AcceleratorAnswer:
    """Compiles the file that a run would write.

    Raises `ExportError` where Vela does not take it.
    """
    return judge(request.write())


def judge(file: Path) -> AcceleratorAnswer:
    """A verdict on each operator of a file."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", _VELA, "--accelerator-config", PROCESSOR, "--output-dir", folder, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        compiled = Path(folder) / f"{file.stem}_vela.tflite"
        if done.returncode or not compiled.is_file():
            raise ExportError(f"Vela does not compile the file: {_complaint(done.stdout + done.stderr)}")
        left = Graph(compiled.read_bytes())
    reasons = {name: _TENSOR.sub("", reason) for name, reason in _REASON.findall(done.stdout)}
    on_cpu = {_computed(left, operator) for operator in left.operators if left.kind(operator) != _COMPILED}
    given = Graph(file.read_bytes())
    asked = []
    for operator in given.operators:
        name = _computed(given, operator)
        verdict = Verdict.FALLS_BACK if name in on_cpu else Verdict.RUNS
        reason = reasons.get(name, _UNTOLD) if name in on_cpu else ""
        asked.append(AskedOperator(given.kind(operator), verdict, reason, name))
    source = f"Vela {installed_version('ethos-u-vela')}, for {PROCESSOR}"
    return AcceleratorAnswer(tuple(asked), left.kinds()[_COMPILED], source)


def _computed(graph: Graph, operator: Any) -> str:
    """The name of the first tensor that an operator computes."""
    return graph.name(int(operator.outputs[0]))


def _complaint(text: str) -> str:
    """What Vela says of a file that it refuses, in a line."""
    said = text.rpartition("Compilation failed:")[2].replace(_UNREAD, "")
    return " ".join(said.split()).removeprefix("Error: ").rstrip(", ") or "it says nothing"
