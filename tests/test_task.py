"""Accuracy with its interval, agreement, decoding."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.measure.answers import rounding_step
from edgeopt.tasks import TASKS
from edgeopt.tasks.guessing import GuessKind, guess_in, guess_of
from edgeopt.tasks.parts.classes import softmax
from edgeopt.tasks.statistics import bootstrap_interval, holm, mcnemar, paired, wilson_interval

TASK = TASKS["classification"]


@given(st.integers(1, 5000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_wilson_is_scipys(counts: tuple[int, int]) -> None:
    from scipy.stats import binomtest

    successes, count = counts
    expected = binomtest(successes, count).proportion_ci(method="wilson")
    assert wilson_interval(successes, count) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemar_is_the_exact_binomial_test(lost: int, gained: int) -> None:
    """Counted in whole numbers: SciPy's own sum gives 0 from some 1e-280 down."""
    throws, rarer = lost + gained, min(lost, gained)
    at_most = sum(math.comb(throws, heads) for heads in range(rarer + 1))
    expected = min(1.0, float(Fraction(2 * at_most, 2**throws)))
    assert mcnemar(lost, gained) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_ten_lost_and_none_gained_is_no_chance() -> None:
    assert mcnemar(10, 0) == pytest.approx(2 / 2**10)
    assert mcnemar(3, 2) == 1.0


pairs = st.integers(1, 3000).flatmap(
    lambda count: st.integers(0, count).flatmap(
        lambda lost: st.integers(0, count - lost).map(lambda gained: (count, lost, gained))
    )
)


@given(pairs)
def test_the_bootstrap_interval_holds_the_change_and_mirrors_it(counts: tuple[int, int, int]) -> None:
    count, lost, gained = counts
    found, mirrored = bootstrap_interval(paired(count, lost, gained)), bootstrap_interval(paired(count, gained, lost))
    if not lost + gained:
        assert found is None and mirrored is None
        return
    assert found is not None and mirrored is not None
    low, high = found
    assert -1 <= low <= (gained - lost) / count <= high <= 1
    assert mirrored == pytest.approx((-high, -low), abs=1e-12)
    wider = bootstrap_interval(paired(count, lost, gained), 0.99)
    assert wider is not None and wider[0] <= low and high <= wider[1]


@pytest.mark.parametrize(("count", "lost", "gained"), [(40, 5, 1), (270, 3, 9), (1000, 40, 60), (5000, 2, 0)])
def test_the_bootstrap_interval_is_scipys_but_for_what_is_drawn(count: int, lost: int, gained: int) -> None:
    from scipy.stats import bootstrap

    steps = np.repeat([-1.0, 1.0, 0.0], [lost, gained, count - lost - gained])
    drawn = bootstrap(
        (steps,), np.mean, n_resamples=20_000, batch=500, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    # the distribution's steps are 1 / count, and its quantiles drawn 20,000 times are off by a step at times
    assert bootstrap_interval(paired(count, lost, gained)) == pytest.approx((drawn.low, drawn.high), abs=1.01 / count)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_raises_p_values_and_keeps_their_order(values: list[float]) -> None:
    raised = holm(values)
    assert all(one <= other <= 1 for one, other in zip(values, raised, strict=True))
    for one, high in zip(values, raised, strict=True):
        for other, higher in zip(values, raised, strict=True):
            assert one > other or high <= higher
    # rejected at a level are, by definition, the smallest ones up to the first above its share of the level
    for level in (0.01, 0.05, 0.5):
        kept = 0
        for place, value in enumerate(sorted(values)):
            if value * (len(values) - place) > level:
                break
            kept += 1
        assert sum(each <= level for each in raised) == kept


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))


def test_two_models_are_compared_image_by_image() -> None:
    labels = np.array([0, 1, 1, 0, 1])
    before = np.eye(2, dtype=np.float32)[[0, 1, 1, 1, 0]]
    after = np.eye(2, dtype=np.float32)[[1, 0, 1, 0, 0]]
    found = TASK.compare((before,), (after,), labels)
    assert (found.images, found.lost, found.gained) == (5, 2, 1)
    assert found.change == pytest.approx(-0.2) and found.may_be_chance


def test_near_ties_are_counted_among_the_answers_that_differ() -> None:
    reference = np.array([[1.0, 0.9], [3.0, 0.0], [0.0, 5.0]], dtype=np.float32)
    logits = np.array([[0.9, 1.0], [0.0, 3.0], [0.0, 5.0]], dtype=np.float32)
    assert TASK.near_ties((logits,), (reference,), (0.2,)) == 1
    assert (~TASK.alike((logits,), (reference,))).sum() == 2


def test_the_rounding_of_an_int8_output_is_the_distance_of_its_values() -> None:
    generator = np.random.default_rng(0)
    grid = generator.integers(-128, 128, (200, 10)).astype(np.float32) * np.float32(0.25)
    assert rounding_step(grid) == pytest.approx(0.25)
    assert rounding_step(generator.normal(size=(200, 10)).astype(np.float32)) < 1e-3


def test_score_and_agreement() -> None:
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]], dtype=np.float32)
    score = TASK.score((logits,), np.array([0, 1, 1]))
    assert score.value == pytest.approx(2 / 3)
    assert score.interval[0] < 2 / 3 < score.interval[1]
    assert TASK.agreement((logits,), (-logits,)) == 0.0
    assert TASK.agreement((logits,), (logits * 5,)) == 1.0


def test_confidence_is_softmax() -> None:
    logits = np.array([[1000.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=np.float32)
    first, second = TASK.decode((logits,))
    assert (first.label, first.confidence) == (0, pytest.approx(1.0))
    assert second.confidence == pytest.approx(1 / 3)
    assert softmax(logits).sum(axis=1) == pytest.approx([1.0, 1.0])


def test_loss_is_cross_entropy_with_smoothing() -> None:
    import torch

    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    assert torch.equal(TASK.loss((logits,), labels, 0.1), expected)


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
