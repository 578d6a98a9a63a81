"""Answers of a task where edgeopt is not: by its modules for devices, in a process that has nothing else of edgeopt."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.arrays import Json, save_outputs
from edgeopt.devices.bundle import agent_file
from edgeopt.testing.contracts import imports_of

if TYPE_CHECKING:
    from edgeopt.arrays import Outputs

_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import json
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from edgeopt.arrays import load_outputs
answers = import_module(sys.argv[2]).answers(load_outputs(Path(sys.argv[3])), json.load(sys.stdin))
print(json.dumps([asdict(each) for each in answers]))
"""


def answers_there(modules: Sequence[str], outputs: Outputs, decision: Mapping[str, Json]) -> list[Json]:
    """The answers for each image, as JSON values, that `TaskPlugin.device_modules` give by the `decision` of a card.

    Raises `AssertionError` where a module imports what does not go to a device, or fails there.
    """
    known = {*sys.stdlib_module_names, "numpy"}
    for module in modules:
        others = {name for name in imports_of(module) if name.partition(".")[0] not in known} - set(modules)
        assert not others, f"{module} imports {', '.join(sorted(others))} besides what goes to a device"
    with tempfile.TemporaryDirectory() as folder:
        agent, given = Path(folder) / "agent.pyz", Path(folder) / "outputs.npz"
        agent.write_bytes(agent_file(modules))
        save_outputs(given, outputs)
        command = [sys.executable, "-I", "-c", _PROGRAM, str(agent), modules[0], str(given)]
        done = subprocess.run(
            command, input=json.dumps(decision), capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == 0, f"{modules[0]} fails on a device: {done.stderr}"
    found: list[Json] = json.loads(done.stdout)
    return found
