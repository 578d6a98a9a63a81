"""How far figures of a limited number of images can be trusted: an interval for one, a test for two."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHANCE = 0.05
"""From this p-value on, a difference is said to be possible chance."""


@dataclass(frozen=True)
class Paired:
    """Two models that answered the same `images`.

    `lost` counts the images that only the first answered rightly, `gained` those that only the second did; where they
    are `graded`, those that the second answered worse, and better. `p_value` is that of the exact McNemar test, which
    of graded images is the sign test: how probable a difference at least as large is if neither model is better.
    """

    images: int
    lost: int
    gained: int
    p_value: float
    graded: bool = False

    @property
    def change(self) -> float:
        """Accuracy of the second less that of the first, -1 to 1."""
        return (self.gained - self.lost) / self.images if self.images else 0.0

    @property
    def may_be_chance(self) -> bool:
        """Whether the test leaves open that neither is better."""
        return self.p_value >= CHANCE


def paired(images: int, lost: int, gained: int, *, graded: bool = False) -> Paired:
    """The comparison of two models of which the second lost and gained so many of the same images; `graded` says that
    it answered them worse or better, and not wrongly or rightly.
    """
    return Paired(images, lost, gained, mcnemar(lost, gained), graded)


def mcnemar(lost: int, gained: int) -> float:
    """The two-sided p-value of the exact McNemar test: that of `lost` among `lost + gained` throws of a fair coin.

    Images that both answered rightly, or both wrongly, say nothing about the difference and do not enter.

    Source: Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12 (1947); exact form by the binomial distribution.
    """
    throws, rarer = lost + gained, min(lost, gained)
    if lost == gained:
        return 1.0
    # logarithms, because binomial coefficients of a few thousand throws do not fit into a float
    whole = math.lgamma(throws + 1) - throws * math.log(2)
    tail = math.fsum(
        math.exp(whole - math.lgamma(heads + 1) - math.lgamma(throws - heads + 1)) for heads in range(rarer + 1)
    )
    return min(1.0, 2 * tail)


def wilson_interval(successes: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if count == 0:
        return (0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / count
    center = share + z * z / (2 * count)
    margin = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return (max(0.0, (center - margin) / scale), min(1.0, (center + margin) / scale))


def bootstrap_interval(pair: Paired, confidence: float = 0.95) -> tuple[float, float] | None:
    """The percentile interval of the paired bootstrap of `pair.change`, -1 to 1.

    Drawing images anew, with replacement, gives a sum of independent steps -1 (lost), +1 (gained) and 0, whose
    distribution is computed here as it is, so that nothing is left to drawn numbers: the same images give the same
    interval, and swapping the models mirrors it. None where no image was lost or gained: drawing anew from such images
    says nothing.

    Source: B. Efron, "Better bootstrap confidence intervals", JASA 82 (1987), section 1, the percentile method.
    """
    if not pair.images or not pair.lost + pair.gained:
        return None
    import numpy as np  # heavy: nobody else here needs arrays

    count = pair.images
    step = np.zeros(2 * count + 1)
    step[[-1, 0, 1]] = pair.lost / count, 1 - (pair.lost + pair.gained) / count, pair.gained / count
    sums = np.fft.irfft(np.fft.rfft(step) ** count, 2 * count + 1)  # the sum of n independent steps
    ordered = np.clip(np.concatenate([sums[count + 1 :], sums[: count + 1]]), 0.0, None)  # from -n to n
    tail = (1 - confidence) / 2
    # the first value from which on more than a tail's share lies below or at it, from either end
    low = int(np.searchsorted(np.cumsum(ordered), tail, side="right")) - count
    high = count - int(np.searchsorted(np.cumsum(ordered[::-1]), tail, side="right"))
    return low / count, high / count


def resampled_interval(
    count: int, figure: Callable[[NDArray[np.int64]], float], confidence: float = 0.95, draws: int = 500
) -> tuple[float, float]:
    """The percentile interval of a figure of `count` images, by drawing images anew with replacement, always the same
    draws.

    `figure` is given the places of as many images, int64 (count,), some of them several times. Where it is a mean over
    images, `mean_interval` is quicker.

    Source: B. Efron, "Better bootstrap confidence intervals", JASA 82 (1987), section 1, the percentile method.
    """
    import numpy as np  # heavy: nobody else here needs arrays

    random = np.random.default_rng(0)
    figures = [figure(random.integers(0, count, count)) for _ in range(draws)]
    tail = (1 - confidence) / 2
    low, high = np.quantile([each for each in figures if not math.isnan(each)] or [math.nan], [tail, 1 - tail])
    return float(low), float(high)


def mean_interval(values: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """The interval of the mean of `values`, float (n,), one an image, as `resampled_interval` gives it."""
    return resampled_interval(len(values), lambda chosen: float(values[chosen].mean()), confidence)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P-values of several tests, raised so that the chance of a single wrong one among them stays at their level.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6
    (1979).
    """
    raised = [1.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        raised[index] = largest
    return tuple(raised)
