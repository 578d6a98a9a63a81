"""Accuracy with its interval, agreement, decoding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.tasks import TASKS
from edgeopt.tasks.classification import softmax, wilson_interval

TASK = TASKS["classification"]


@given(st.integers(1, 5000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_wilson_is_scipys(counts: tuple[int, int]) -> None:
    from scipy.stats import binomtest

    successes, count = counts
    expected = binomtest(successes, count).proportion_ci(method="wilson")
    assert wilson_interval(successes, count) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_score_and_agreement() -> None:
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]], dtype=np.float32)
    score = TASK.score(logits, np.array([0, 1, 1]))
    assert score.value == pytest.approx(2 / 3)
    assert score.interval[0] < 2 / 3 < score.interval[1]
    assert TASK.agreement(logits, -logits) == 0.0
    assert TASK.agreement(logits, logits * 5) == 1.0


def test_confidence_is_softmax() -> None:
    logits = np.array([[1000.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=np.float32)
    first, second = TASK.decode(logits)
    assert (first.label, first.confidence) == (0, pytest.approx(1.0))
    assert second.confidence == pytest.approx(1 / 3)
    assert softmax(logits).sum(axis=1) == pytest.approx([1.0, 1.0])


def test_loss_is_cross_entropy_with_smoothing() -> None:
    import torch

    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    assert torch.equal(TASK.loss(logits, labels, 0.1), expected)
