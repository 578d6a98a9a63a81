"""How long `edgeopt --help` and `edgeopt check` take: medians over fresh processes, the two commands in turns."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from bars import Bar, finish

RECIPE = Path(__file__).parents[1] / "recipes" / "mobilenetv3_qat_android.toml"
RUNS = 11
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "help": [sys.executable, "-m", "edgeopt", "--help"],
    "check": [sys.executable, "-m", "edgeopt", "check", str(RECIPE)],
}
LIMITS = {"help": 0.15, "check": 0.6}


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
    print(f"{'command':<16}{'median s':>10}{'min s':>10}{'max s':>10}   ({RUNS} runs each)")
    for name, values in times.items():
        print(f"{name:<16}{statistics.median(values):>10.3f}{min(values):>10.3f}{max(values):>10.3f}")
    finish(*(Bar(f"{name}_seconds", statistics.median(times[name]), limit) for name, limit in LIMITS.items()))


if __name__ == "__main__":
    main()
