"""What is made of measured times, and how calls are dealt out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.measure import summarize, turns
from edgeopt.settings import MeasureSettings


@given(st.lists(st.floats(0.001, 1e4), min_size=2, max_size=300))
def test_figures_are_those_of_numpy(times: list[float]) -> None:
    figures = summarize(times, MeasureSettings(threads=2, warmup=3))
    assert figures.p50 == pytest.approx(np.percentile(times, 50))
    assert figures.p90 == pytest.approx(np.percentile(times, 90))
    assert figures.std == pytest.approx(np.std(times, ddof=1), rel=1e-6, abs=1e-9)
    assert (figures.runs, figures.threads, figures.warmup) == (len(times), 2, 3)


@given(st.integers(1, 10_000), st.integers(1, 1000))
def test_turns_add_up(runs: int, rounds: int) -> None:
    dealt = turns(runs, rounds)
    assert sum(dealt) == runs
    assert len(dealt) == min(runs, rounds)
    assert max(dealt) - min(dealt) <= 1
