"""What `edgeopt serve` costs: a file behind the server against a bare loop around its predictor, in turns, in one run.

Overhead is an answer's `total_ms` less its `file_ms`, for a JPEG of 64 px: decoding, preprocessing, and the way to the
file's process and back. What the client waits beyond the file's own time, HTTP included, is shown beside it. Throughput
is that of two clients, as a share of the bare loop's, which does nothing but call the predictor on a batch that is
ready. On two cores the clients, the server and the decoding share one while the file works on the other, so a file that
is faster than these together cannot have its whole throughput: the bar is for MobileNetV2, and MobileNetV3-small is
shown beside it. Memory is how much the server and the file's process grow over 20,000 requests.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from bars import Bar, finish
from rich.console import Console
from rich.table import Table

SMALL, LARGER = "mobilenet_v3_small", "mobilenet_v2"
OVERHEAD_LIMIT_MS = 2.0
THROUGHPUT_LIMIT = 0.9
GROWTH_LIMIT_MB = 3.0
CLIENTS = 2
REQUESTS = 20_000
SETTLED = 2_000  # requests after which everything has been allocated once
TURNS = 5
TURN_S = 4.0

RECIPE = """\
schema = 1
name = "{name}"

[dataset]
use = "digits"
image_size = {size}
limit = 200

[model]
use = "torchvision"
arch = "{arch}"
weights = "none"

[[exports]]
use = "onnx"

[measure]
threads = 1
runs = 5
rounds = 1
"""

BARE = """\
import sys, time
import numpy as np
from pathlib import Path
from edgeopt.plugins.declarations import ExporterPlugin
from edgeopt.plugins.registry import load_registry

predictor = load_registry().get(ExporterPlugin, "onnx").open(Path(sys.argv[1]), 1)
batch = np.zeros((1, 3, int(sys.argv[2]), int(sys.argv[2])), np.float32)
for line in sys.stdin:
    end, calls = time.perf_counter() + float(line), 0
    start = time.perf_counter()
    while time.perf_counter() < end:
        predictor.predict(batch)
        calls += 1
    print(calls / (time.perf_counter() - start), flush=True)
"""


@dataclass(frozen=True)
class Served:
    """A server with one file."""

    process: int
    port: int
    file: str

    def client(self) -> http.client.HTTPConnection:
        """A connection that is kept."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, client: http.client.HTTPConnection, image: bytes) -> dict[str, float]:
        """The answer for an image."""
        client.request("POST", f"/v1/predict?{urlencode({'file': self.file})}", image)
        response = client.getresponse()
        answer = json.loads(response.read())
        assert response.status == 200, answer
        return answer

    def resident_mb(self) -> dict[str, float]:
        """The memory of the server and of the file's process."""
        children = Path(f"/proc/{self.process}/task/{self.process}/children").read_text().split()
        return {name: _resident_mb(pid) for name, pid in (("server", self.process), ("file", int(children[0])))}


def make_run(arch: str, size: int, folder: Path) -> Path:
    """A run of an untrained network with one float file."""
    name = f"{arch.replace('_', '-')}-{size}"
    recipe = folder / f"{name}.toml"
    recipe.write_text(RECIPE.format(name=name, arch=arch, size=size))
    command = [sys.executable, "-m", "edgeopt", "run", str(recipe), "--out", str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return folder / name


@contextmanager
def serving(run: Path) -> Iterator[Served]:
    """The run's files, served by the command."""
    command = [sys.executable, "-m", "edgeopt", "serve", str(run), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | {"COLUMNS": "200"}
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        address = next(word for word in line.replace(",", "").split() if word.startswith("http"))
        port = urlsplit(address).port
        assert port
        while True:
            client = http.client.HTTPConnection("127.0.0.1", port)
            client.request("GET", "/v1/files")
            (file,) = json.loads(client.getresponse().read())
            client.close()
            if file["state"] == "ready":
                break
            time.sleep(0.1)
        yield Served(process.pid, port, file["name"])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def jpeg(size: int = 64) -> bytes:
    """A JPEG that is no plain colour."""
    import numpy as np
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size, size, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


def overhead(served: Served, image: bytes, count: int = 500) -> dict[str, list[float]]:
    """What one client waits beyond the file's own time, ms: by its own clock, and by the server's."""
    client = served.client()
    waits: dict[str, list[float]] = {"client": [], "server": []}
    for number in range(count + 50):
        start = time.perf_counter()
        answer = served.ask(client, image)
        waited = (time.perf_counter() - start) * 1e3
        if number >= 50:
            waits["client"].append(waited - answer["file_ms"])
            waits["server"].append(answer["total_ms"] - answer["file_ms"])
    client.close()
    return waits


def throughput(served: Served, image: bytes, seconds: float) -> float:
    """Answers a second that two clients get."""
    counts = [0] * CLIENTS
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        client = served.client()
        while time.perf_counter() < end:
            served.ask(client, image)
            counts[number] += 1
        client.close()

    start = time.perf_counter()
    _together(work)
    return sum(counts) / (time.perf_counter() - start)


def compare(run: Path, served: Served, size: int, image: bytes) -> list[tuple[float, float]]:
    """Answers a second of the bare loop and of the server, in turns."""
    file = run / "onnx" / "baseline" / "model.onnx"
    bare = subprocess.Popen(
        [sys.executable, "-c", BARE, str(file), str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert bare.stdin
    assert bare.stdout
    pairs = []
    for turn in range(TURNS + 1):
        bare.stdin.write(f"{TURN_S}\n")
        bare.stdin.flush()
        loop = float(bare.stdout.readline())
        answers = throughput(served, image, TURN_S)
        if turn:  # the first warms both
            pairs.append((loop, answers))
    bare.stdin.close()
    bare.wait()
    return pairs


def growth(served: Served, image: bytes) -> dict[str, float]:
    """How many MB the processes grow from when they have settled to the last of all requests."""

    def ask(count: int) -> None:
        def work(_number: int) -> None:
            client = served.client()
            for _ in range(count // CLIENTS):
                served.ask(client, image)
            client.close()

        _together(work)

    ask(SETTLED)
    before = served.resident_mb()
    ask(REQUESTS)
    return {name: after - before[name] for name, after in served.resident_mb().items()}


def measure() -> list[Bar]:
    """All figures, printed, and their bars."""
    image = jpeg()
    pairs = {}
    with tempfile.TemporaryDirectory(prefix="edgeopt-serving-") as folder:
        runs = {arch: make_run(arch, 224, Path(folder)) for arch in (SMALL, LARGER)}
        little = make_run(SMALL, 64, Path(folder))
        for arch, run in runs.items():
            with serving(run) as served:
                if arch == SMALL:
                    waits = overhead(served, image)
                pairs[arch] = compare(run, served, 224, image)
        with serving(little) as served:
            grown = growth(served, image)
    by_client, by_server = (statistics.median(waits[name]) for name in ("client", "server"))
    table = Table("figure", "value", title="edgeopt serve, float files in ONNX Runtime, one thread")
    table.add_row(f"{SMALL}: p50 beyond the file's own time, client's clock", f"{by_client:.2f} ms")
    table.add_row(f"{SMALL}: p50 beyond the file's own time, server's clock", f"{by_server:.2f} ms")
    for arch, measured in pairs.items():
        table.add_row(f"{arch}: bare loop", f"{statistics.median(loop for loop, _ in measured):.0f} a second")
        table.add_row(f"{arch}: {CLIENTS} clients", f"{statistics.median(both for _, both in measured):.0f} a second")
        table.add_row(f"{arch}: share", f"{_share(measured):.3f}")
    for name, megabytes in grown.items():
        table.add_row(f"growth of the {name}'s process over {REQUESTS:,} requests", f"{megabytes:.2f} MB")
    Console().print(table)
    return [
        Bar("server overhead, ms", by_server, OVERHEAD_LIMIT_MS),
        Bar("server throughput, share of a bare loop", _share(pairs[LARGER]), THROUGHPUT_LIMIT, at_least=True),
        Bar("server growth, MB", max(grown.values()), GROWTH_LIMIT_MB),
    ]


def _share(pairs: Sequence[tuple[float, float]]) -> float:
    return statistics.median(answers / loop for loop, answers in pairs)


def _together(work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    finish(*measure())
