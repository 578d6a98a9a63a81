"""Accuracy with its interval, agreement, decoding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.measure.answers import rounding_step
from edgeopt.tasks import TASKS
from edgeopt.tasks.classification import softmax
from edgeopt.tasks.guessing import GuessKind, guess_in, guess_of
from edgeopt.tasks.statistics import mcnemar, wilson_interval

TASK = TASKS["classification"]


@given(st.integers(1, 5000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_wilson_is_scipys(counts: tuple[int, int]) -> None:
    from scipy.stats import binomtest

    successes, count = counts
    expected = binomtest(successes, count).proportion_ci(method="wilson")
    assert wilson_interval(successes, count) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemar_is_scipys_exact_binomial_test(lost: int, gained: int) -> None:
    from scipy.stats import binomtest

    expected = binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    if expected > 1e-290:
        assert mcnemar(lost, gained) == pytest.approx(expected, rel=1e-6)
    else:  # scipy's own sum loses what is smaller, down to 0
        assert mcnemar(lost, gained) < 1e-280


def test_ten_lost_and_none_gained_is_no_chance() -> None:
    assert mcnemar(10, 0) == pytest.approx(2 / 2**10)
    assert mcnemar(3, 2) == 1.0


def test_two_models_are_compared_image_by_image() -> None:
    labels = np.array([0, 1, 1, 0, 1])
    before = np.eye(2, dtype=np.float32)[[0, 1, 1, 1, 0]]
    after = np.eye(2, dtype=np.float32)[[1, 0, 1, 0, 0]]
    found = TASK.compare(before, after, labels)
    assert (found.images, found.lost, found.gained) == (5, 2, 1)
    assert found.change == pytest.approx(-0.2) and found.may_be_chance


def test_near_ties_are_counted_among_the_answers_that_differ() -> None:
    reference = np.array([[1.0, 0.9], [3.0, 0.0], [0.0, 5.0]], dtype=np.float32)
    logits = np.array([[0.9, 1.0], [0.0, 3.0], [0.0, 5.0]], dtype=np.float32)
    assert TASK.near_ties(logits, reference, 0.2) == 1
    assert TASK.near_ties(logits, reference, np.inf) == 2


def test_the_rounding_of_an_int8_output_is_the_distance_of_its_values() -> None:
    generator = np.random.default_rng(0)
    grid = generator.integers(-128, 128, (200, 10)).astype(np.float32) * np.float32(0.25)
    assert rounding_step(grid) == pytest.approx(0.25)
    assert rounding_step(generator.normal(size=(200, 10)).astype(np.float32)) < 1e-3


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


# ---- guesses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "asked", "only", "kind"),
    [
        (57, (3, 57), 1, GuessKind.ONE_CLASS),
        (57, (3, 57), None, GuessKind.MOST_FREQUENT),
        (22, (20, 20, 20), None, GuessKind.CHANCE),
        (58, (3, 57), None, None),
        (45, (20, 20, 20), None, None),
        (60, (0, 60), 1, None),
        (0, (0, 0), None, None),
    ],
)
def test_what_a_guess_is(right: int, asked: tuple[int, ...], only: int | None, kind: GuessKind | None) -> None:
    found = guess_of(right, asked, "abc"[: len(asked)], only)
    assert (found.kind if found else None) is kind


@given(st.integers(1, 40), st.integers(0, 40), st.integers(2, 5), st.integers(0, 1000))
def test_a_constant_answer_is_a_guess_whatever_it_names(count: int, more: int, classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.repeat(np.arange(classes), count), np.zeros(more, dtype=np.int64)])
    named = int(random.integers(classes))
    logits = np.eye(classes, dtype=np.float32)[np.full(len(labels), named)]
    names = [f"class {index}" for index in range(classes)]
    found = guess_in(logits, labels, names)
    assert found is not None
    assert found.told("test images") == f"answers 'class {named}' for all of {len(labels)} test images"
    assert guess_of(found.right, np.bincount(labels).tolist(), names) is not None  # answers alone were not needed
    assert guess_in(np.eye(classes, dtype=np.float32)[labels], labels, names) is None or len(labels) < 12
