"""How far figures of a limited number of images can be trusted: an interval for one, a test for two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

CHANCE = 0.05
"""From this p-value on, a difference is said to be possible chance."""


@dataclass(frozen=True)
class Paired:
    """Two models that answered the same `images`.

    `lost` counts the images that only the first answered rightly, `gained` those that only the second did. `p_value`
    is that of the exact McNemar test: how probable a difference at least as large is if neither model is better.
    """

    images: int
    lost: int
    gained: int
    p_value: float

    @property
    def change(self) -> float:
        """Accuracy of the second less that of the first, -1 to 1."""
        return (self.gained - self.lost) / self.images if self.images else 0.0

    @property
    def may_be_chance(self) -> bool:
        """Whether the test leaves open that neither is better."""
        return self.p_value >= CHANCE


def paired(images: int, lost: int, gained: int) -> Paired:
    """The comparison of two models of which the second lost and gained so many of the same images."""
    return Paired(images, lost, gained, mcnemar(lost, gained))


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
