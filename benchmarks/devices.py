"""The same files as `local` and on this machine behind `ssh`, in one run of `edgeopt bench` after the other, in turns.

Answers must be the same bit for bit. The figure of a file is the median over the turns of its p50 behind ssh as a share
of that of `local`; the bar is for the file that is furthest off. Without an sshd there is nothing to compare with, and it
says so.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bars import Bar, finish
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "plugins"))

import ssh_server

TURNS = 5
LIMIT = 0.05

RECIPE = """\
schema = 1
name = "devices"

[dataset]
use = "digits"
image_size = 128
limit = 400

[model]
use = "torchvision"
arch = "mobilenet_v3_small"
weights = "none"

[[passes]]
use = "ptq"

[[exports]]
use = "onnx"

[[exports]]
use = "tflite"

[measure]
runs = 5
rounds = 1
"""

DEVICE = """\
[[devices]]
use = "ssh"
name = "board"
host = "board"
config = "{config}"
python = "{python}"
install = false
"""


def bench(run: Path, devices: Path, device: str, out: Path) -> list[dict[str, Any]]:
    """The rows of `edgeopt bench` on one device."""
    command = [sys.executable, "-m", "edgeopt", "bench", str(run), "--device", device]
    command += ["--recipe", str(devices), "--images", "100", "--out", str(out)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    rows: list[dict[str, Any]] = json.loads((out / "bench.json").read_text())["rows"]
    return rows


def measure() -> list[Bar]:
    """All figures, printed, and their bars."""
    if ssh_server.SSHD is None:
        print(f"devices: not measured, {ssh_server.MISSING}")
        return []
    ratios: dict[str, list[float]] = {}
    differences: list[float] = []
    with tempfile.TemporaryDirectory(prefix="edgeopt-devices-") as aside:
        folder = Path(aside)
        (folder / "recipe.toml").write_text(RECIPE)
        run = [sys.executable, "-m", "edgeopt", "run", str(folder / "recipe.toml"), "--out", str(folder / "runs")]
        done = subprocess.run(run, check=False, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        server = ssh_server.start(folder / "sshd", {"PATH": os.environ["PATH"]})
        try:
            devices = folder / "devices.toml"
            devices.write_text(DEVICE.format(config=server.config, python=sys.executable))
            for turn in range(TURNS):
                order = ("local", "board") if turn % 2 else ("board", "local")
                found = {each: bench(folder / "runs" / "devices", devices, each, folder / "out") for each in order}
                for here, there in zip(found["local"], found["board"], strict=True):
                    ratios.setdefault(here["file"], []).append(there["latency_ms"]["p50"] / here["latency_ms"]["p50"])
                    differences += [row["answers"]["max_logit_difference"] for row in (here, there)]
        finally:
            server.stop()
    medians = {file: statistics.median(each) for file, each in ratios.items()}
    table = Table("file", "p50 behind ssh against local", title=f"edgeopt bench --device, {TURNS} turns")
    for file, ratio in medians.items():
        table.add_row(file, f"{ratio:.3f}")
    Console().print(table)
    return [
        Bar("behind ssh: largest difference of a logit from local", max(differences), 0.0),
        Bar("behind ssh: p50 away from local at most, share", max(abs(ratio - 1) for ratio in medians.values()), LIMIT),
    ]


if __name__ == "__main__":
    finish(*measure())
