"""What is made of measured times, and how calls are dealt out."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.measure import calls as measure
from edgeopt.measure.latency import Start, serve, summarize, turns
from edgeopt.options import MeasureSettings, Options, Protocol
from edgeopt.plugins.declarations import ExporterPlugin


@given(st.lists(st.floats(0.001, 1e4), min_size=2, max_size=300))
def test_figures_are_those_of_numpy(times: list[float]) -> None:
    turns_ms = [times[:5], times[5:]] if len(times) > 5 else [times]
    figures = summarize(turns_ms, MeasureSettings(threads=2, warmup=3, batch_size=4), Start(30.0, 5.0))
    assert figures.turns == pytest.approx(tuple(np.median(turn) for turn in turns_ms))
    assert figures.p50 == pytest.approx(np.percentile(times, 50))
    assert figures.p90 == pytest.approx(np.percentile(times, 90))
    assert figures.p99 == pytest.approx(np.percentile(times, 99))
    assert figures.images_per_s == pytest.approx(4000 * len(times) / sum(times))
    assert (figures.load, figures.first) == (30.0, 5.0)
    assert figures.std == pytest.approx(np.std(times, ddof=1), rel=1e-6, abs=1e-9)
    assert (figures.runs, figures.threads, figures.warmup) == (len(times), 2, 3)


@given(st.integers(5, 10_000), st.integers(1, 1000))
def test_turns_add_up(runs: int, rounds: int) -> None:
    dealt = [turn.calls for turn in turns(MeasureSettings(runs=runs, rounds=rounds))]
    assert sum(dealt) == runs
    assert len(dealt) == min(runs, rounds)
    assert max(dealt) - min(dealt) <= 1


@given(st.integers(5, 10_000), st.integers(1, 1000))
def test_a_single_stream_has_a_minute_and_1024_calls(runs: int, rounds: int) -> None:
    dealt = turns(MeasureSettings(runs=runs, rounds=rounds, protocol=Protocol.SINGLE_STREAM))
    assert sum(turn.calls for turn in dealt) == max(runs, 1024)
    assert sum(turn.seconds for turn in dealt) == pytest.approx(60.0)


def test_a_single_stream_has_one_image_a_call() -> None:
    with pytest.raises(ValueError, match="one image a call, and batch_size is 8"):
        MeasureSettings(protocol=Protocol.SINGLE_STREAM, batch_size=8)


class _Runtime:
    """A runtime and the clock that it runs by: a call takes 1 ms, the first after a pause five, and a thread spins for
    40 ms after it.
    """

    def __init__(self) -> None:
        self.now = self.used = self.spins_until = 0.0
        self.calls = 0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.used

    def sleep(self, seconds: float) -> None:
        self.used += min(seconds, max(0.0, self.spins_until - self.now))
        self.now += seconds

    def predict(self, batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        taken = 0.001 if self.spins_until > self.now else 0.005
        self.now += taken
        self.used += taken
        self.spins_until = self.now + 0.04
        self.calls += 1
        return batch


def test_a_file_is_warm_when_its_calls_count_and_has_come_to_rest_when_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = _Runtime()
    monkeypatch.setattr(measure, "time", runtime)
    answers: list[dict[str, Any]] = []

    def answer(event: dict[str, Any]) -> None:
        assert runtime.now >= runtime.spins_until, "another file would be measured beside threads that still spin"
        answers.append(event)
        runtime.sleep(1.0)  # the others' turns

    exporter = ExporterPlugin(
        name="fake",
        summary="A runtime by the clock.",
        options=Options,
        export=lambda *_: None,  # type: ignore[arg-type, return-value]
        open=lambda *_: runtime,  # type: ignore[arg-type, return-value]
        runtime="fake",
        suffix=".fake",
    )
    serve(
        exporter,
        Path("model.fake"),
        np.zeros((1, 3, 8, 8), np.float32),
        1,
        10,
        iter(["open", "20 0", "7 0", "5 0.5", "end"]),
        answer,
    )
    here, ready, *timed, _memory = answers
    assert [each["event"] for each in answers] == ["here", "ready", "times", "times", "times", "memory"]
    assert here == {"event": "here"}
    assert ready == {"event": "ready", "load_ms": pytest.approx(0.0), "first_ms": pytest.approx(5.0)}
    assert timed[0]["times_ms"] == pytest.approx([1.0] * 20)
    assert timed[1]["times_ms"] == pytest.approx([1.0] * 7)
    assert timed[2]["times_ms"] == pytest.approx([1.0] * 500, abs=1e-6)
    assert runtime.calls > 10 + 527 + 3 * 10


class _Elsewhere:
    """A file that is open in another process: there a call takes 0.25 ms, and the way there is long."""

    load_ms, call_ms = 70.0, 0.0

    def predict(self, batch: Any) -> Any:
        time.sleep(0.002)
        self.call_ms = 0.25
        return batch

    def peak_memory_bytes(self) -> int:
        return 123_000

    def close(self) -> None:
        return


def test_the_way_to_a_file_in_another_process_is_not_its_time() -> None:
    answers: list[dict[str, Any]] = []
    requests = iter(["open", "5 0", "end"])
    measure.answer_turns(lambda: nullcontext(_Elsewhere()), None, 2, requests, answers.append)
    assert answers[1:] == [
        {"event": "ready", "load_ms": 70.0, "first_ms": 0.25},
        {"event": "times", "times_ms": [0.25] * 5},
        {"event": "memory", "peak_memory_bytes": 123_000},
    ]
