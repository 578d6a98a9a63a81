"""What edgeopt costs: `edgeopt run` against a plain script that does the same steps, in turn, in one run.

Both train MobileNetV3-small on digits for ten epochs, train two more with quantization in the loop, write an int8
`.pte` and an int8 `.onnx`, and score both files on the test images in their runtimes. edgeopt also checks, caches,
measures latency and memory, and writes its report; the float files that it makes beside the int8 ones by default are
left out on its side, because the script makes none. Besides, what a data set of 50,000 files costs a run: `walks.py`.

    python benchmarks/overhead.py [ROUNDS]
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import walks
from bars import Bar, finish

ROOT = Path(__file__).parent.parent


def seconds(command: list[str], log: Path) -> float:
    start = time.perf_counter()
    with log.open("ab") as output:
        subprocess.run(command, cwd=ROOT, stdout=output, stderr=output, check=True)
    return time.perf_counter() - start


def main(rounds: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="edgeopt-overhead-"))
    recipe = ROOT / "recipes" / "mobilenetv3_qat_android.toml"
    script = [sys.executable, str(Path(__file__).with_name("plain_script.py")), str(folder / "plain")]
    edgeopt = [sys.executable, "-m", "edgeopt", "run", str(recipe), "--set", "baseline=false"]
    pairs = []
    print(f"{'round':>5} {'edgeopt, s':>12} {'script, s':>12} {'ratio':>8}")
    for turn in range(rounds):
        out = ["--out", str(folder / f"edgeopt-{turn}"), "--set", "gates={}"]
        ours, theirs = seconds([*edgeopt, *out], folder / "edgeopt.log"), seconds(script, folder / "script.log")
        pairs.append(ours / theirs)
        print(f"{turn:>5} {ours:>12.1f} {theirs:>12.1f} {ours / theirs:>8.3f}", flush=True)
    shutil.rmtree(folder)
    finish(Bar("overhead", statistics.median(pairs), 1.05), *walks.measure(5))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
