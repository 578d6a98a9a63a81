"""How far confidences can be believed: the error of calibration, and the temperature that mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeopt.tasks.sections import Section, SectionPlot, SectionTable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeopt.arrays import Labels, Logits

BINS = 15
_COLDEST, _HOTTEST = 0.05, 20.0
_HALVINGS = 60


def fitted_temperature(logits: Logits, labels: Labels) -> float:
    """The number by which to divide logits, float (n, classes), so that the softmax of them is likeliest for the
    labels, int64 (n,): between 0.05 and 20.

    Source: C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    import numpy as np  # heavy; whoever has logits has imported it

    values = logits.astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    own = values[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        """How the mean negative log-likelihood changes with 1 / temperature: it never falls again once it has risen."""
        weights = np.exp(values * inverse)
        return float(((weights * values).sum(axis=1) / weights.sum(axis=1) - own).mean())

    low, high = 1 / _HOTTEST, 1 / _COLDEST
    if slope(low) >= 0:
        return _HOTTEST
    if slope(high) <= 0:
        return _COLDEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 2 / (low + high)


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """The mean distance of confidence and accuracy over 15 bins of equal width, weighed by their images: 0 to 1.

    Source: M. P. Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.
    """
    import numpy as np  # as above

    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    off = np.bincount(bins, confidence - right, minlength=BINS)
    return float(np.abs(off).sum() / len(confidence))


def calibration_section(confidence: NDArray[np.float64], right: NDArray[np.bool_], temperature: float) -> Section:
    """Accuracy by confidence, for the report."""
    import numpy as np  # as above

    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    rows, x, y = [], [], []
    for each in np.unique(bins):
        inside = bins == each
        sure, told = float(confidence[inside].mean()), float(right[inside].mean())
        rows.append((f"{each / BINS:.2f}–{(each + 1) / BINS:.2f}", int(inside.sum()), f"{sure:.1%}", f"{told:.1%}"))
        x.append(sure)
        y.append(told)
    said = "Confidences are the softmax of the logits"
    said += f", divided by {temperature:.3f}, the temperature in the card." if temperature != 1.0 else "."
    return Section(
        "Calibration",
        (said,),
        (SectionTable(("confidence", "images", "mean confidence", "accuracy"), tuple(rows)),),
        (
            SectionPlot(
                "Accuracy by confidence",
                "confidence",
                "accuracy",
                (("as sure as right", (0.0, 1.0), (0.0, 1.0)), ("this file", tuple(x), tuple(y))),
            ),
        ),
    )
