"""scikit-learn's handwritten digits as images."""

from __future__ import annotations

import numpy as np

from edgeopt.data.images import ArrayImages, labels_of
from edgeopt.plugins import RawDataset


def read_digits() -> RawDataset:
    """1,797 digits, uint8 (n, 8, 8), classes "0" to "9", one split.

    Source: the test part of E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository
    (1998).
    """
    from sklearn.datasets import load_digits  # heavy

    images, labels = (load_digits()[name] for name in ("images", "target"))
    pixels = np.rint(images * (255 / 16)).astype(np.uint8)  # 16 grey steps to the full range
    return RawDataset(tuple("0123456789"), {"train": ArrayImages(pixels, labels_of(labels))})
