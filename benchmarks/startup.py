"""How long `edgeopt --help` and `edgeopt check` take against `python -c pass`: medians over fresh processes, in turns.

The limits are what a person waits for without noticing, 0.15 s for help and 0.6 s for a whole check, on a machine where
Python itself starts in 0.025 s (the least of 40 starts on the two cores that the figures of this repository come from):
6 and 24 starts of Python. As ratios they hold on other machines, and beside other work.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from bars import Bar, finish

RECIPE = Path(__file__).parents[1] / "recipes" / "mobilenetv3_qat_android.toml"
RUNS = 11
BARE = "python -c pass"
COMMANDS = {
    BARE: [sys.executable, "-c", "pass"],
    "help": [sys.executable, "-m", "edgeopt", "--help"],
    "check": [sys.executable, "-m", "edgeopt", "check", str(RECIPE)],
}
LIMITS = {"help": 6.0, "check": 24.0}


def seconds(command: list[str]) -> float:
    """Wall time of one fresh process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for command in COMMANDS.values():
        seconds(command)  # fills the caches of files and bytecode
    for _ in range(RUNS):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{'command':<16}{'median s':>10}{'min s':>10}{'max s':>10}{'starts':>10}   ({RUNS} runs each)")
    for name, values in times.items():
        starts = medians[name] / medians[BARE]
        print(f"{name:<16}{medians[name]:>10.3f}{min(values):>10.3f}{max(values):>10.3f}{starts:>10.1f}")
    finish(*(Bar(name, medians[name] / medians[BARE], limit) for name, limit in LIMITS.items()))


if __name__ == "__main__":
    main()
