"""What other work on the machine costs a run: a training on all processors, quiet and beside a busy loop on each of them.

The two take turns in one run of this script, each with results of its own. Beside as many loops as processors, half of
the time is a fair share, and twice as long the least that can be reached. The machine must be quiet otherwise: what
else works on it slows the quiet turns too, and the ratio says too little; its share of the processors is shown.

    python benchmarks/busy.py [TURNS]
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bars import Bar, finish

from edgeopt.cores import usable_cores
from edgeopt.workers.spinning import busy_share

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "recipes" / "mobilenetv3_qat_android.toml"
SHORTER = ("passes.0.epochs=3", "passes.1.epochs=1", 'exports=[{use="onnx"}]', "baseline=false", "gates={}")


def seconds(out: Path, log: Path) -> float:
    """Wall time of one run from nothing."""
    changes = [part for change in SHORTER for part in ("--set", change)]
    start = time.perf_counter()
    with log.open("ab") as output:
        command = [sys.executable, "-m", "edgeopt", "run", str(RECIPE), "--out", str(out), *changes]
        subprocess.run(command, cwd=ROOT, stdout=output, stderr=output, check=True)
    return time.perf_counter() - start


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main(turns: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="edgeopt-busy-"))
    ratios = []
    print(f"{'turn':>4} {'others use':>11} {'quiet, s':>9} {'busy, s':>9} {'ratio':>7}")
    for turn in range(turns):
        others = busy_share(1.0)
        quiet = seconds(folder / f"quiet-{turn}", folder / "log.txt")
        with busy_loops(usable_cores()):
            busy = seconds(folder / f"busy-{turn}", folder / "log.txt")
        ratios.append(busy / quiet)
        print(f"{turn:>4} {others:>10.0%} {quiet:>10.1f} {busy:>9.1f} {ratios[-1]:>7.2f}", flush=True)
    shutil.rmtree(folder)
    finish(Bar("busy", statistics.median(ratios), 3))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
