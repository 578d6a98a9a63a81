"""How steady the latency of a file is on this machine, with one thread and with more: MobileNetV2 in three runtimes,
turn after turn.

Says whether milliseconds of two runs can be compared here. Cores of a virtual machine can be moved while it runs, and
then threads that wait for one another after every layer take longer, while one thread alone does not.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from bars import Bar, finish
from rich.console import Console
from rich.progress import track
from rich.table import Table
from untrained import untrained_program

from edgeopt.networks.tracing import quick_tracing
from edgeopt.plugins.declarations import ExporterPlugin, Predictor
from edgeopt.plugins.registry import load_registry
from edgeopt.recipe.lookup import resolve
from edgeopt.testing.exporter import export_file

RUNTIMES = {"executorch": "ExecuTorch", "onnx": "ONNX Runtime", "tflite": "LiteRT"}
SIZE = 64
TURN_S, REST_S = 0.05, 0.06  # rest: a runtime's threads go on spinning after a call
STEADY = 1.25  # slowest tenth of the turns over the fastest tenth; a report calls more than that noise


def turn_ms(predictor: Predictor, image: np.ndarray) -> float:
    """Median of the calls of a turn, after which nothing is running."""
    times, end = [], time.perf_counter() + TURN_S
    while time.perf_counter() < end:
        start = time.perf_counter()
        predictor.predict(image)
        times.append((time.perf_counter() - start) * 1e3)
    time.sleep(REST_S)
    return statistics.median(times)


def main() -> None:
    """Runs the files in turns, shows how far apart their turns were, and judges one thread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=200, help="of each file")
    parser.add_argument("--threads", type=int, default=2, help="threads beside one")
    given = parser.parse_args()
    registry, image = load_registry(), np.zeros((1, 3, SIZE, SIZE), np.float32)
    files: dict[tuple[str, int], Predictor] = {}
    with tempfile.TemporaryDirectory() as folder, quick_tracing():
        state = untrained_program("mobilenet_v2", SIZE)
        for runtime in RUNTIMES:
            use = resolve(ExporterPlugin, runtime, {}, registry)
            (aside := Path(folder) / runtime).mkdir()
            file, _result = export_file(use, state, aside)
            for threads in (1, given.threads):
                # ExecuTorch's pool of threads belongs to the process, not to the file
                if threads == 1 or runtime != "executorch":
                    files[runtime, threads] = use.plugin.open(file, threads)
        turns: dict[tuple[str, int], list[float]] = {key: [] for key in files}
        for _ in track(range(given.turns), "turns", console=Console(stderr=True)):
            for key, predictor in files.items():
                turns[key].append(turn_ms(predictor, image))
    table = Table("file", "threads", *(f"{name}, ms" for name in ("fastest tenth", "median", "slowest tenth")), "apart")
    apart = {}
    for (runtime, threads), each in turns.items():
        deciles = statistics.quantiles(each, n=10)
        apart[runtime, threads] = deciles[-1] / deciles[0]
        figures = (f"{ms:.3f}" for ms in (deciles[0], statistics.median(each), deciles[-1]))
        table.add_row(RUNTIMES[runtime], str(threads), *figures, f"{apart[runtime, threads]:.2f}x")
    Console(width=110).print(table)
    finish(*(Bar(f"{RUNTIMES[runtime]}, one thread, apart", apart[runtime, 1], STEADY) for runtime in RUNTIMES))


if __name__ == "__main__":
    main()
