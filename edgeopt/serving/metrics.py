"""Counters and times as Prometheus reads them: text format 0.0.4."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_EDGES_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass
class Histogram:
    """How many times were at most each edge, in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * len(_EDGES_S))
    count: int = 0
    sum_s: float = 0.0

    def observe(self, seconds: float) -> None:
        """Counts one time."""
        self.count += 1
        self.sum_s += seconds
        for place, edge in enumerate(_EDGES_S):
            if seconds <= edge:
                self.counts[place] += 1


@dataclass
class Metrics:
    """What was asked of each file: requests by status, and the times of the answered ones."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    total: dict[str, Histogram] = field(default_factory=dict)
    file: dict[str, Histogram] = field(default_factory=dict)

    def answered(self, name: str, total_ms: float, file_ms: float) -> None:
        """Counts an answer of the file `name`."""
        self.requests[name, 200] += 1
        self.total.setdefault(name, Histogram()).observe(total_ms / 1e3)
        self.file.setdefault(name, Histogram()).observe(file_ms / 1e3)

    def refused(self, name: str, status: int) -> None:
        """Counts a request that was not answered; `name` is empty where no file was meant."""
        self.requests[name, status] += 1


def render(
    metrics: Metrics, up: Mapping[str, bool], waiting: Mapping[str, int], restarts: Mapping[str, int], held_bytes: int
) -> str:
    """All of it as text; the mappings are by the files' names."""
    requests = [
        (f'{{file="{_escaped(name)}",status="{status}"}}', count)
        for (name, status), count in sorted(metrics.requests.items())
    ]
    lines = [
        *_metric("requests_total", "counter", "Requests for an answer, by file and HTTP status.", requests),
        *_metric("file_up", "gauge", "1 where the file is open, else 0.", _by_file(up)),
        *_metric("queue_length", "gauge", "Requests that wait for their turn at a file.", _by_file(waiting)),
        *_metric("restarts_total", "counter", "Processes that died on a file.", _by_file(restarts)),
        *_metric("held_bytes", "gauge", "Bytes of the images that are held now.", [("", held_bytes)]),
        *_histograms("request_seconds", "From the whole image to the answer.", metrics.total),
        *_histograms("file_seconds", "What the file itself took.", metrics.file),
    ]
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, text: str, values: Iterable[tuple[str, int]]) -> list[str]:
    return [
        f"# HELP edgeopt_{name} {text}",
        f"# TYPE edgeopt_{name} {kind}",
        *(f"edgeopt_{name}{labels} {value:d}" for labels, value in values),
    ]


def _by_file(values: Mapping[str, int]) -> list[tuple[str, int]]:
    return [(f'{{file="{_escaped(name)}"}}', value) for name, value in values.items()]


def _histograms(name: str, text: str, histograms: Mapping[str, Histogram]) -> list[str]:
    lines = [f"# HELP edgeopt_{name} {text}", f"# TYPE edgeopt_{name} histogram"]
    for file, histogram in sorted(histograms.items()):
        label = f'file="{_escaped(file)}"'
        edges = [*(f"{edge:g}" for edge in _EDGES_S), "+Inf"]
        for edge, count in zip(edges, [*histogram.counts, histogram.count], strict=True):
            lines.append(f'edgeopt_{name}_bucket{{{label},le="{edge}"}} {count}')
        lines += [
            f"edgeopt_{name}_sum{{{label}}} {histogram.sum_s:.6f}",
            f"edgeopt_{name}_count{{{label}}} {histogram.count}",
        ]
    return lines


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
