"""Bounds hold with the probability that they state, and what is certain is never wrong."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.sensitivity.bounds import fewest_hits, most_hits
from edgeopt.sensitivity.table import Measure, Verdict
from edgeopt.sensitivity.tally import Judge, Tally, tally


def probability(population, successes, drawn, hits):
    return Fraction(comb(successes, hits) * comb(population - successes, drawn - hits), comb(population, drawn))


@pytest.mark.parametrize("error", [0.2, 0.05, 0.001])
@pytest.mark.parametrize(("population", "drawn"), [(12, 5), (20, 3), (20, 17), (9, 9), (9, 0)])
def test_bounds_are_wrong_no_more_often_than_stated(population, drawn, error):
    for successes in range(population + 1):
        too_low = too_high = Fraction(0)
        for hits in range(max(0, drawn - population + successes), min(successes, drawn) + 1):
            chance = probability(population, successes, drawn, hits)
            too_low += chance if most_hits(population, drawn, hits, error) < successes else 0
            too_high += chance if fewest_hits(population, drawn, hits, error) > successes else 0
        assert too_low <= error + 1e-9
        assert too_high <= error + 1e-9


@pytest.mark.parametrize("hits", [0, 1, 4])
def test_a_bound_is_the_closest_that_the_test_allows(hits):
    population, drawn, error = 30, 10, 0.05
    bound = most_hits(population, drawn, hits, error)
    below = [
        sum(probability(population, total, drawn, each) for each in range(hits + 1)) for total in (bound, bound + 1)
    ]
    assert below[0] > error >= below[1]


def test_bounds_are_exact_when_all_is_seen_and_certain_without_an_error():
    assert most_hits(10, 10, 3, 0.01) == fewest_hits(10, 10, 3, 0.01) == 3
    assert (fewest_hits(10, 4, 3, 0.0), most_hits(10, 4, 3, 0.0)) == (3, 9)
    assert (fewest_hits(10, 0, 0, 0.01), most_hits(10, 0, 0, 0.01)) == (0, 10)


def test_large_populations_do_not_overflow():
    bound = most_hits(1_000_000, 10_000, 100, 1e-9)
    assert 10_000 < bound < 20_000


answers = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def _tallies(drawn):
    """Running tallies of images given as (right before, right after)."""
    seen = Tally()
    for before, after in drawn:
        seen = seen.plus(Tally(right=before, wrong=not before, lost=before and not after, gained=after and not before))
        yield seen


@given(answers, st.floats(-0.2, 0.6))
def test_a_certain_verdict_is_that_on_all_images(drawn, threshold):
    *_, last = _tallies(drawn)
    judge = Judge(Measure.ACCURACY, threshold, last)
    lost = last.lost - last.gained
    verdicts = [judge.verdict(seen) for seen in _tallies(drawn)]
    expected = Verdict.FAILS if lost > threshold * len(drawn) + 1e-9 else Verdict.PASSES
    assert verdicts[-1] == expected
    assert set(verdicts) <= {expected, Verdict.NONE}
    for seen in _tallies(drawn):
        least, most = judge.bounds(seen)
        assert least - 1e-12 <= lost / len(drawn) <= most + 1e-12


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 10)), min_size=1, max_size=30), st.floats(0, 2))
def test_a_certain_verdict_on_logits_is_that_on_all_images(errors, threshold):
    parts = [Tally(right=1, error=error, energy=energy) for error, energy in errors]
    tallies, seen = [], Tally()
    for part in parts:
        seen = seen.plus(part)
        tallies.append(seen)
    judge = Judge(Measure.LOGITS, threshold, seen)
    verdicts = [judge.verdict(each) for each in tallies]
    expected = Verdict.FAILS if seen.error / seen.energy > threshold else Verdict.PASSES
    assert verdicts[-1] == expected
    assert set(verdicts) <= {expected, Verdict.NONE}


def test_statistical_verdicts_come_early_and_are_rarely_wrong():
    """2000 images, of which the change loses 40 and gains 10: a drop of 1.5 %, in 40 random orders."""
    random = np.random.default_rng(0)
    parts = [Tally(right=1)] * 1880 + [Tally(right=1, lost=1)] * 40 + [Tally(wrong=1, gained=1)] * 10
    parts += [Tally(wrong=1)] * 70
    whole = Tally(right=1920, wrong=80, lost=40, gained=10)
    fields = np.array([[part.right, part.wrong, part.lost, part.gained] for part in parts])
    decided, wrong = [], 0
    for _ in range(40):
        looks = np.cumsum(fields[random.permutation(2000)], axis=0)[99::100]
        for threshold, truth in ((0.002, Verdict.FAILS), (0.05, Verdict.PASSES)):
            judge = Judge(Measure.ACCURACY, threshold, whole, error=0.002)
            seen = next(each for each in map(Tally, *looks.T.tolist()) if judge.verdict(each) is not Verdict.NONE)
            decided.append(seen.images)
            wrong += judge.verdict(seen) is not truth
    assert wrong <= 1
    assert np.mean(decided) < 1000
    certain = Judge(Measure.ACCURACY, 0.05, whole)
    assert next(each.images for each in map(Tally, *looks.T.tolist()) if certain.verdict(each)) > 1500


def test_a_batch_is_counted():
    reference = np.array([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, 1.0]], dtype=np.float32)
    changed = np.array([[2.0, 1.0], [0.0, 1.0], [0.0, 1.0], [3.0, 1.0]], dtype=np.float32)
    counted = tally((changed,), (reference,), np.array([0, 0, 1, 0]))
    assert (counted.right, counted.wrong, counted.lost, counted.gained) == (3, 1, 1, 1)
    assert counted.error == pytest.approx(4 + 9)
    assert counted.energy == pytest.approx(5 + 5 + 1 + 1)


def test_logits_that_overflow_fail():
    reference = np.ones((2, 3), dtype=np.float32)
    changed = np.full((2, 3), np.nan, dtype=np.float32)
    seen = tally((changed,), (reference,), np.array([0, 1]))
    judge = Judge(Measure.LOGITS, 0.5, tally((reference,), (reference,), np.array([0, 1])))
    assert judge.verdict(seen) is Verdict.FAILS
