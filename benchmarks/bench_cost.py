"""What `edgeopt bench` takes without a sweep, against the run that measures the same files again and nothing more.

Both are commands in turns on one finished run: `edgeopt run --measure-again`, which times every file and writes the
report, and `edgeopt bench`, which besides opens each file once more, takes an image the whole way, and writes its page.

    python benchmarks/bench_cost.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bars import Bar, finish
from rich.console import Console
from rich.table import Table

TURNS = 5
LIMIT = 1.05

RECIPE = """\
schema = 1
name = "bench-cost"

[dataset]
use = "digits"
image_size = 224
limit = 400

[model]
use = "torchvision"
arch = "mobilenet_v2"
weights = "none"

[[passes]]
use = "ptq"

[[exports]]
use = "onnx"

[[exports]]
use = "tflite"
"""


def _seconds(*arguments: str) -> float:
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "edgeopt", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - start


def measure() -> list[Bar]:
    """All figures, printed, and the bar."""
    table = Table("turn", "run --measure-again, s", "bench, s", "ratio", title="edgeopt bench, one batch and no sweep")
    ratios = []
    with tempfile.TemporaryDirectory(prefix="edgeopt-bench-cost-") as aside:
        recipe, out = Path(aside) / "recipe.toml", Path(aside) / "runs"
        recipe.write_text(RECIPE)
        again = ("run", str(recipe), "--out", str(out), "--measure-again")
        bench = ("bench", str(out / "bench-cost"))
        _seconds(*again)
        for turn in range(TURNS):
            run_s, bench_s = _seconds(*again), _seconds(*bench)
            ratios.append(bench_s / run_s)
            table.add_row(str(turn), f"{run_s:.1f}", f"{bench_s:.1f}", f"{ratios[-1]:.3f}")
    Console().print(table)
    return [Bar("bench without a sweep, against measuring in a run", statistics.median(ratios), LIMIT)]


if __name__ == "__main__":
    finish(*measure())
